"""Runs commands in processes of their own that need not load the libraries anew.

A process that has imported the command line waits for requests on the socket it is given. For
each it forks: the child takes over the request's files and folder, and is the command, from
`main()` to the interpreter's end. The parent answers with the child's exit code. That leaves
out the start of an interpreter and nothing else; tests of starting and ending use real starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from midstream.cli.command_table import COMMANDS, load
from midstream.cli.main import main

#: The longest request: arguments and a folder.
MOST_NBYTES = 1 << 16


def wait_for_commands(asked: socket.socket) -> None:
    """Answer requests until the other side closes; return in children, to be the command."""
    while True:
        message, files, _, _ = socket.recv_fds(asked, MOST_NBYTES, 2)
        if not message:
            sys.exit()
        pid = os.fork()
        if not pid:
            request = json.loads(message)
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            asked.close()
            os.chdir(request["folder"])
            sys.argv = ["midstream", *request["arguments"]]
            return
        for file in files:
            os.close(file)
        _, status = os.waitpid(pid, 0)
        asked.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    for name in COMMANDS:
        load(name)
    wait_for_commands(socket.socket(fileno=int(sys.argv[1])))
    main()
