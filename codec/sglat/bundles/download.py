"""One file from the net: resumed after a cut, checked by size and hash, renamed when whole."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from sglat.errors import DownloadError
from sglat.files import naming

Progress = Callable[[int, int | None], None]
"""Called with the bytes present and the bytes expected, None if unknown."""

_SPARE_BYTES: Final = 16 << 20  # left free on the disk; a fuller one is refused beforehand
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a file must be; None is not checked."""

    size_bytes: int | None = None
    sha256: str | None = None
    git_blob_sha1: str | None = None
    """Where no sha256 is known: SHA-1 over `blob <size>`, a zero byte and the content."""


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """Retries and timeouts."""

    is_offline: bool = False
    attempts: int = 5
    """Tries per address; each resumes where the last ended."""
    pause_seconds: float = 1.0
    """Pause before the second try; doubles each time."""
    timeout_seconds: float = 30.0
    """Without a byte."""
    lock_seconds: float = 3600.0
    """How long to wait for another process that fetches the same file."""
    chunk_bytes: int = 1 << 20


class _CutOff(Exception):
    """The connection ended early; worth another try."""


def download(
    addresses: Sequence[str],
    target: Path,
    expected: Expected,
    *,
    config: DownloadConfig | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetch a file unless it is already there and right.

    A partial download is kept in `<name>.partial` and resumed by the next call. Two processes that
    fetch the same file take turns; the second finds it complete.

    Args:
        addresses: tried in order, `https` or `http`.
        target: where the file goes; its folder is made.
        expected: size and hashes.
        config: retries and timeouts.
        progress: called while bytes come.

    Raises:
        DownloadError: offline, unreachable, refused, wrong size, wrong hash, no space; names the
            file, the address, the expected and the found.
    """
    config = config or DownloadConfig()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{target}.lock", timeout=config.lock_seconds):
            if target.exists() and not _difference(target, expected):
                return
            if config.is_offline:
                place = addresses[0] if addresses else "nowhere"
                raise DownloadError("offline", f"{target.name} is not here; it would be at {place}")
            _from_first(addresses, target, expected, config, progress)
    except Timeout as error:
        raise DownloadError(
            "locked", f"{target.name}: another process has held it for {config.lock_seconds:.0f} s"
        ) from error


def check_download(path: Path, expected: Expected, *, name: str) -> None:
    """Compare a file with its catalogue entry; raises DownloadError with expected and found."""
    difference = _difference(path, expected)
    if difference:
        raise DownloadError("wrong-file", f"{name}: {difference}")


def hash_download(path: Path) -> tuple[str, str]:
    """Return a file's sha256 and git blob SHA-1 in one pass."""
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file, naming(path):
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            blob.update(chunk)
    return sha256.hexdigest(), blob.hexdigest()


def free_bytes(folder: Path) -> int:
    """Return the space left for us in a folder."""
    return shutil.disk_usage(folder).free


def _difference(path: Path, expected: Expected) -> str:
    """Return what is wrong with a file, or an empty text."""
    size = path.stat().st_size
    if expected.size_bytes is not None and size != expected.size_bytes:
        return f"expected {expected.size_bytes} bytes, found {size}"
    sha256, blob = hash_download(path)
    if expected.sha256 is not None and sha256 != expected.sha256:
        return f"expected sha256 {expected.sha256}, found {sha256}"
    if expected.git_blob_sha1 is not None and blob != expected.git_blob_sha1:
        return f"expected git blob {expected.git_blob_sha1}, found {blob}"
    return ""


def _from_first(
    addresses: Sequence[str],
    target: Path,
    expected: Expected,
    config: DownloadConfig,
    progress: Progress | None,
) -> None:
    """Try the addresses in order; the last one's error is raised."""
    failure = DownloadError("no-address", f"{target.name}: nobody offers it at a direct address")
    for address in addresses:
        try:
            return _Transfer(address, target, expected, config, progress).run()
        except DownloadError as error:
            failure = error
            if error.code == "no-space":
                break
    raise failure


@dataclass(frozen=True)
class _Transfer:
    """One file from one address."""

    address: str
    target: Path
    expected: Expected
    config: DownloadConfig
    progress: Progress | None

    def __post_init__(self) -> None:
        if urlsplit(self.address).scheme not in ("https", "http"):
            raise DownloadError("bad-address", f"expected https, got {self.address:.200}")

    @property
    def partial(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial")

    def run(self) -> None:
        """Bring the whole file and rename it."""
        is_resumed = self._start() > 0
        difference = self._bring()
        if difference and is_resumed:  # the partial file may be of another version
            self.partial.unlink()
            difference = self._bring()
        if difference:
            self.partial.unlink()
            raise self._error("wrong-file", difference)
        self.partial.replace(self.target)

    def _bring(self) -> str:
        """Fetch until the file is complete; return what is wrong with it, or an empty text."""
        pause = self.config.pause_seconds
        for attempt in range(1, self.config.attempts + 1):
            try:
                self._try_once()
                return _difference(self.partial, self.expected)
            except _CutOff as error:
                if attempt == self.config.attempts:
                    raise self._error(
                        "cut-off", f"{error}; run it again to go on from {self._start()} bytes"
                    ) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _try_once(self) -> None:
        have = self._start()
        if have and have == self.expected.size_bytes:
            return
        headers = {"User-Agent": "sglat", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        request = urllib.request.Request(self.address, headers=headers)
        try:
            opener = urllib.request.build_opener(_CarefulRedirects)
            with opener.open(request, timeout=self.config.timeout_seconds) as response:
                self._receive(response, have)
        except urllib.error.HTTPError as error:
            self._refused(error, have)
        except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
            raise _CutOff(f"the connection broke: {_reason(error)}") from error
        except urllib.error.URLError as error:
            raise _CutOff(f"cannot reach it: {_reason(error.reason)}") from error

    def _refused(self, error: urllib.error.HTTPError, have: int) -> None:
        if error.code == 416 and have:
            return  # nothing follows the bytes present; the hash decides whether they are complete
        if error.code in _RETRIED:
            raise _CutOff(f"the server answered {error.code}") from error
        raise self._error("refused", f"the server answered {error.code}") from error

    def _receive(self, response: http.client.HTTPResponse, have: int) -> None:
        """Append the response to the bytes present."""
        if response.status == 206:
            if not (response.headers["Content-Range"] or "").startswith(f"bytes {have}-"):
                raise self._error("bad-answer", "the server sent another range than asked for")
        else:
            have = 0  # the server sends everything from the start
        length = response.headers["Content-Length"]
        total = have + int(length) if length and length.isdigit() else None
        wanted = self.expected.size_bytes
        if wanted is not None and total is not None and total != wanted:
            raise self._error("wrong-size", f"expected {wanted} bytes, the server offers {total}")
        self._check_space((total or wanted or have) - have)
        with self.partial.open("ab" if have else "wb") as file:
            done = self._copy(response, file, have, total or wanted)
        if total is not None and done < total:
            raise _CutOff(f"cut off after {done} of {total} bytes")

    def _copy(
        self, response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int | None
    ) -> int:
        wanted = self.expected.size_bytes
        if self.progress:
            self.progress(done, total)
        while chunk := response.read(self.config.chunk_bytes):
            done += len(chunk)
            if wanted is not None and done > wanted:
                raise self._error("wrong-size", f"expected {wanted} bytes, the server sends more")
            try:
                file.write(chunk)
            except OSError as error:
                raise self._error("no-space", f"cannot write: {_reason(error)}") from error
            if self.progress:
                self.progress(done, total)
        return done

    def _check_space(self, needed: int) -> None:
        free = free_bytes(self.partial.parent)
        if needed + _SPARE_BYTES > free:
            raise self._error(
                "no-space",
                f"expected {needed + _SPARE_BYTES} bytes free in {self.partial.parent}, "
                f"found {free}",
            )

    def _start(self) -> int:
        """Return the bytes present; a file longer than expected is discarded."""
        have = self.partial.stat().st_size if self.partial.exists() else 0
        if self.expected.size_bytes is not None and have > self.expected.size_bytes:
            self.partial.unlink()
            return 0
        return have

    def _error(self, code: str, message: str) -> DownloadError:
        return DownloadError(code, f"{self.target.name}: {message} ({self.address})")


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to another scheme."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req: urllib.request.Request, fp, code: int, msg: str, headers, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("https", "http") or (before == "https" and after != "https"):
            raise DownloadError("bad-redirect", f"{req.full_url} leads to {newurl:.200}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _reason(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
