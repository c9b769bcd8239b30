"""Every error sglat raises on purpose.

SglatError                      one line, a code, nothing lost
├── FormatError                 the bytes break the specification: code, expected, found, offset
├── BundleError                 weights: missing, damaged, wrong shape, unknown name
│   └── BundleMismatchError     the file was made for another decoder
├── DownloadError               a weight file could not be fetched or checked
├── MediaError                  a video or audio stream cannot be read or written
├── FaceError                   no usable face where one is needed
├── WorkFileError               a work file cannot be resumed
├── UsageError                  arguments that contradict each other or the input; a missing input,
│                               an output that exists
└── MissingExtraError           an optional dependency is not installed
"""

from __future__ import annotations

from functools import partial


class SglatError(Exception):
    """Base of all errors with a clear one-line message.

    Args:
        code: short machine-readable name, words joined by hyphens.
        message: what was expected and what was found.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # what an error is made of again in another process
        self.code = code
        self.message = message
        self.path: str | None = None
        """The file, where the message does not name it; see `sglat.files.naming`."""

    def __str__(self) -> str:
        name = "" if self.path is None else f"{self.path}: "
        return f"{self.code}: {name}{self.message}"


class FormatError(SglatError):
    """The bytes break the specification.

    Args:
        code: a code of the table in `format_spec/SPEC.md`.
        message: expected and found.
        offset: position in the file in bytes, where known.
    """

    def __init__(self, code: str, message: str, *, offset: int | None = None) -> None:
        super().__init__(code, message)
        self.offset = offset

    def __str__(self) -> str:
        place = "" if self.offset is None else f" (at byte {self.offset})"
        return f"{super().__str__()}{place}"


class BundleError(SglatError):
    """Weights are missing, damaged or of the wrong shape."""


class BundleMismatchError(BundleError):
    """A file names another decoder than the loaded bundle, or two files name different ones."""


class DownloadError(SglatError):
    """A weight file could not be fetched or does not match its catalogue entry."""


class MediaError(SglatError):
    """A video or audio stream cannot be read or written."""


class FaceError(SglatError):
    """No usable face where one is needed."""


class WorkFileError(SglatError):
    """A work file belongs to another input or cannot be resumed."""


class UsageError(SglatError):
    """Arguments contradict each other or the input, or name a file that cannot be used."""


class MissingExtraError(SglatError):
    """An optional dependency is not installed."""

    def __init__(self, module: str, *, extra: str, install: str = "") -> None:
        """Name the module and its extra; `install` replaces the arguments of pip install."""
        wanted = install or f"sglat[{extra}]"
        super().__init__(
            "missing-extra", f"{module} is needed here; install it with: pip install {wanted}"
        )
        self.module = module
        self.extra = extra
        self.install = install

    def __reduce__(self) -> tuple[partial[MissingExtraError], tuple[()]]:
        make = partial(MissingExtraError, self.module, extra=self.extra, install=self.install)
        return make, ()
