"""The numbers that both sides of the wire hold to, each with its reason."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: A message is sent as soon as its pieces reach this size. Below 256 KiB the cost per message
#: shows, above 2 MiB the allocator's: 3 MB went in 2.4 ms as pieces of 1 MiB, in 4-10 ms as
#: one message and in 30 ms as pieces of 16 KiB. Codec blocks cover at most 1 MiB, so half of
#: that lets one block be sent while the next one is encoded.
MESSAGE_NBYTES: Final = 512 * KIB

#: Largest run of payload bytes in one piece; a codec block that does not shrink is 1 MiB and a
#: header, a picture may be any size and is split.
MAX_PIECE_NBYTES: Final = 2 * MIB

#: What a gRPC endpoint accepts as one message: gRPC's own default, so that any client works.
MAX_MESSAGE_NBYTES: Final = 4 * MIB

#: Largest padding of a probe, with room for the fields around it. It takes 0.3 s at
#: 100 Mbit/s, and more would tell nothing new.
MAX_PADDING_NBYTES: Final = MAX_MESSAGE_NBYTES - 64 * KIB

#: Silence after which a server lets an idle session ping. A dead link is known within this and
#: a second, before the next request needs it, and mappings of NATs live for 30 s and more. It
#: costs 1 MB a day.
KEEPALIVE_S: Final = 10.0

#: The least that an edge makes of a server's word for it: a ping is answered in a second.
MIN_KEEPALIVE_S: Final = 1.0

#: Tensors that one request or reply may carry; the widest cut of the networks tried has 9.
MAX_TENSORS: Final = 1024

#: Names of one message's tensors, in bytes of UTF-8 together: they go in front of the first
#: pieces, which may be one of 2 MiB and what fills a message, within `MAX_MESSAGE_NBYTES`.
MAX_NAMES_NBYTES: Final = MIB

#: Length of a transform's name; "klt:4096" has 8.
MAX_TRANSFORM_CHARS: Final = 64

#: Codecs of users' own that a Hello may name, and letters of each name and version. A device
#: has one or two; sixteen names are 1 KB.
MAX_CODEC_NAMES: Final = 16
MAX_CODEC_CHARS: Final = 32

#: Letters of a server's reason not to take such a codec.
MAX_REASON_CHARS: Final = 400

#: Pieces of one message: a tensor has its headers in one and its first block in the next.
MAX_PIECES: Final = 2 * MAX_TENSORS

#: Fields of one message, those of what lies in it included: `MAX_TENSORS` names, and as many
#: pieces of two fields, with some to spare. A message of 4 MiB could hold two million, each of
#: which takes half a microsecond to look at.
MAX_FIELDS: Final = 5 * MAX_TENSORS

#: What the requests of Describe, which name a model, and of Prepare, heads, may take.
MAX_DESCRIBE_NBYTES: Final = 4 * KIB
MAX_PREPARE_NBYTES: Final = 256 * KIB

#: Decoded size of one request's tensors: a batch of 64 pictures of 3 x 512 x 512 float32 is
#: 201 MB.
MAX_REQUEST_NBYTES: Final = 256 * MIB

#: Requests of one session at a time: four round trips of 50 ms hide behind a tail of 25 ms.
MAX_IN_FLIGHT: Final = 8

#: Fields of a feed that a description tells, and letters of each name and value: a feed has 13
#: fields, and 128 letters hold three means or a name.
MAX_FEED_FIELDS: Final = 32
MAX_FEED_CHARS: Final = 128

#: Heads that one Prepare may name, and bounds of runs of one head: five cuts leave nothing to
#: win, and the most ragged head of the networks tried has 9 runs.
MAX_HEADS: Final = 64
MAX_BOUNDS: Final = 4096
