"""Which requests wait for which.

A *lane* names what a request touches.  Requests with a lane in common are answered in the order in which they came;
a lane that ends in a slash is a listing, and waits for whatever is under way below it.
"""

from __future__ import annotations

from relay import tree
from relay.errors import Refused
from relay.sftp import wire
from relay.sftp.handles import Handles, Listing
from relay.sftp.wire import Request

# Ours are shorter; one that a client made up may be as long as a packet, and its lane is kept while others wait.
_HANDLE_BYTES = 8
_BY_HANDLE = frozenset({wire.CLOSE, wire.READ, wire.WRITE, wire.FSTAT, wire.FSETSTAT, wire.READDIR})


def find_lanes(request: Request, handles: Handles) -> tuple[str, ...]:
    """Return the lanes of *request*: of its paths, or of what its handle stands for."""
    kind = request.type
    if kind in _BY_HANDLE:
        return _handle_lanes(request.subject, handles)
    if kind == wire.EXTENDED:
        return _extension_lanes(request, handles)
    if kind == wire.RENAME:
        return (_path_lane(request.subject), _path_lane(request.target))
    lane = _path_lane(request.subject)
    return (lane.split("/")[0] + "/",) if kind == wire.OPENDIR else (lane,)


def touches(lanes: tuple[str, ...], earlier: tuple[str, ...]) -> bool:
    """True where the two have a lane in common, or one is a listing of the other's directory."""
    return any(
        mine == theirs or (mine.endswith("/") and theirs.startswith(mine)) for mine in lanes for theirs in earlier
    )


def _extension_lanes(request: Request, handles: Handles) -> tuple[str, ...]:
    if request.subject == wire.FSYNC:
        return _handle_lanes(wire.extension_handle(request), handles)
    if request.subject == wire.POSIX_RENAME:
        return tuple(_path_lane(path) for path in wire.extension_paths(request))
    return ()


def _handle_lanes(name: bytes, handles: Handles) -> tuple[str, ...]:
    # Its own as well: what comes behind a CLOSE that is under way finds the handle no more, and still has to wait.
    own, handle = f"handle {name[:_HANDLE_BYTES]!r}", handles.find(name)
    return (own,) if handle is None or isinstance(handle, Listing) else (own, handle.place.lane)


def _path_lane(path: bytes) -> str:
    try:
        return tree.resolve_path(path).lane
    except Refused:
        return "illegal"
