"""Refusals of onnxruntime, each as one sentence of ours.

Its messages carry C++ signatures, source files and build paths, and seldom say what to do.
Those that networks of strangers meet most are told in our own words; of any other the gist is
kept, whole.
"""

from __future__ import annotations

import re

#: How onnxruntime says that its arena, or the machine, has no memory for a tensor.
_LACKS_MEMORY = re.compile(
    r"Available memory of \d+ is smaller than requested bytes|"
    r"Failed to allocate memory for requested buffer|bad_alloc"
)

#: Longest gist that is passed on; what is longer ends behind a word.
MAX_CHARS = 300

#: What onnxruntime says, and what that means: what came, and what to do.
_KNOWN = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        r"its IR version must be at most \2 (not \1): set model.ir_version to \2 where "
        r"nothing newer is used, or install a newer onnxruntime version",
    ),
    (
        r"Opset (\d+) is under development .*till opset (\d+)",
        r"its opset must be at most \2 (not \1): export it with an older opset, or install a "
        r"newer onnxruntime version",
    ),
    (
        r"Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'",
        r"it must have a kernel for \1 of opset \2 with these types, at \3, and has none: "
        r"export the model with another opset or dtype",
    ),
    (
        r"(?:Fatal error: )?(\S+) is not a registered function/op",
        r"it must know every operator, and does not know \1: export the model with "
        r"operators of ONNX",
    ),
    (
        r"No Op registered for (\w+) with domain_version of (\d+)",
        r"it must know every operator, and has no \1 in opset \2: export the model with "
        r"another opset",
    ),
    (
        r"Failed to allocate memory for requested buffer of size (\d+)",
        r"\1 bytes of memory must be available for one tensor, and are not: give the model "
        r"a smaller input, or more memory",
    ),
    (
        r"std::bad_alloc",
        r"more of this machine's memory must be available: give the model a smaller input, "
        r"or more memory",
    ),
    (
        r"Unexpected input data type\. Actual: \(tensor\((\w+)\)\) ?, expected: "
        r"\(tensor\((\w+)\)\)",
        r"an input must be of dtype \2 (not \1): convert it",
    ),
    (
        r"Got invalid dimensions for input: (.+?) for the following indices index: (\d+) Got: "
        r"(\d+) Expected: (\d+)",
        r"the input \1 must have size \4 in dimension \2 (not \3): give it in the "
        r"model's shape",
    ),
    (
        r"Available memory of (\d+) is smaller than requested bytes of (\d+)",
        r"\2 bytes must be available, and \1 are: give the model a smaller input, or more "
        r"memory",
    ),
)

_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOADING = re.compile(r"^Load model from .*? failed:\s*")
_INVALID = re.compile(r"^This is an invalid model\. (?:Error: )?")
#: A source file, its line, and a function's bare name where there is no signature.
_SOURCE = re.compile(r"\S+\.(?:cc|h|cpp|hpp):\d+ (?:\w*[a-z][A-Z]\w* )?")
#: A signature: its result, a qualified name, parameters in which parentheses may stand.
_SIGNATURE = re.compile(
    r"(?:[\w<>:*&]+ )?[\w<>~]+(?:::[\w<>~]+)+\((?:[^()]|\([^()]*\))*\)"
    r"(?: const)?(?: \[with .*?\])?\s*"
)
_ASSERTION = re.compile(r"\S+ (?:[=!<>]=?|\|\||&&) .{1,120}? was false\. ")
_STATUS = re.compile(
    r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' "
    r"Status Message: "
)


def lacks_memory(error: BaseException) -> bool:
    """Return True if a run failed for lack of memory: later, or on a smaller input, it may
    do.
    """
    return isinstance(error, MemoryError) or bool(_LACKS_MEMORY.search(str(error.__cause__)))


def refusal(error: Exception, *, advice: str) -> str:
    """Say in half a sentence what onnxruntime's `error` is about, and what to do.

    That is `advice` where the error is none of those that are known.
    """
    text = " ".join(str(error).split())
    text = _CODE.sub("", text)
    where = _STATUS.findall(text)[-1:]  # the innermost, where bodies run
    for noise in (_STATUS, _LOADING, _INVALID, _SOURCE, _SIGNATURE, _ASSERTION):
        text = noise.sub("", text)
    for pattern, told in _KNOWN:
        found = re.search(pattern, text)
        if found:
            return found.expand(told)
    node = "".join(f"in {op_type} {name}".strip() + ": " for op_type, name in where)
    said = _shortened(text.strip(" .")) or type(error).__name__
    return f"{node}{said}: {advice}"


def _shortened(text: str) -> str:
    """At most `MAX_CHARS` of `text`, never a part of a word."""
    if len(text) <= MAX_CHARS:
        return text
    return text[:MAX_CHARS].rsplit(" ", 1)[0].rstrip(" ,;:(") + " ..."
