"""Where the work lies: a folder that all workers see, or a prefix in an object store (S3, Google, Azure).

Both know whole files by name and nothing else, so that parts, results and marks are the same in each. A file appears
whole or not at all: in a folder by a rename, in an object store because an object appears when its upload is complete.
An empty file counts as none. Whoever reads checks what is read (eval/engines/parts.py).
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from stylegate import files
from stylegate.errors import ConfigError, SurroundingsError


class FolderPlace:
    """A folder, on a disk that all workers see at the same path."""

    is_far = False  # workers see the disks of this machine
    seconds = 0.3  # between two looks for results

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    def file_sizes_in_bytes_by_name(self) -> dict[str, int]:
        """The size in bytes of each file, by its name."""
        sizes = {}
        for path in self.folder.iterdir() if self.folder.is_dir() else []:
            with suppress(FileNotFoundError):  # a worker removed it meanwhile: a mark, or a file that it renamed
                sizes[path.name] = path.stat().st_size
        return sizes

    def has_nonempty_file(self, name: str) -> bool:
        """Whether there is a file of this name that is not empty."""
        with suppress(FileNotFoundError):
            return (self.folder / name).stat().st_size > 0
        return False

    def read_file_bytes(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        return (self.folder / name).read_bytes()

    def write_or_remove_file(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; without content it is removed."""
        if content:
            files.write_atomically(self.folder / name, content)
        else:
            (self.folder / name).unlink(missing_ok=True)

    def remove_all_files(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def display_path_of_file(self, name: str) -> str:
        """Where a file lies, for people."""
        return files.display_path(self.folder / name)


class ObjectStorePlace:
    """A prefix in a bucket, by pyarrow's file systems; keys and endpoint come from the surroundings (AWS_... and such).

    fsspec's s3fs is not used: its botocore needs an older python-dateutil than the one that is pinned.
    """

    is_far = True  # workers may see no disk of this machine
    seconds = 2.0  # a look is a request

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self.uri, self.fs = uri, fs
        # An S3 object of a few MB is then written by one request in place of three.
        told = uri + ("&" if "?" in uri else "?") + "allow_delayed_open=true" if uri.startswith("s3:") else uri
        try:
            self.filesystem, self.prefix = fs.FileSystem.from_uri(told)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"engine.store={uri}: {error}", next_step="give s3://BUCKET/PREFIX, or gs:// or abfs:// and the like."
            ) from None

    def __str__(self) -> str:
        return self.uri

    def file_sizes_in_bytes_by_name(self) -> dict[str, int]:
        found = self._call_store_client(
            "list", self.filesystem.get_file_info, self.fs.FileSelector(self.prefix, allow_not_found=True)
        )
        return {info.base_name: info.size for info in found if info.type == self.fs.FileType.File}

    def has_nonempty_file(self, name: str) -> bool:
        return bool(self._call_store_client("look for", self.filesystem.get_file_info, f"{self.prefix}/{name}").size)

    def read_file_bytes(self, name: str) -> bytes:
        def read_whole_object() -> bytes:
            with self.filesystem.open_input_stream(f"{self.prefix}/{name}", compression=None) as stream:
                return stream.read()

        return self._call_store_client("read", read_whole_object)

    def write_or_remove_file(self, name: str, content: bytes) -> None:
        def upload_object() -> None:
            stream = self.filesystem.open_output_stream(f"{self.prefix}/{name}", compression=None)
            stream.write(content)
            stream.close()  # now it appears

        self._call_store_client("write", upload_object)

    def remove_all_files(self) -> None:
        """Remove all of it. Raises SurroundingsError where the store lets nothing be removed."""
        self._call_store_client("remove", self.filesystem.delete_dir_contents, self.prefix, missing_dir_ok=True)

    def display_path_of_file(self, name: str) -> str:
        return f"{self.uri.partition('?')[0]}/{name}"

    def _call_store_client(self, what: str, call: Any, *given: Any, **named: Any) -> Any:
        """Call a function of the store's client, and return what it returns. Raises SurroundingsError for what the
        store refuses (no bucket, no key, no network) in the words `what`, such as "read".
        """
        try:
            return call(*given, **named)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise SurroundingsError(
                f"engine.store: {self.uri.partition('?')[0]} does not {what}: {error}",
                next_step="check bucket, endpoint and keys (docs/scale.md); then the same command again.",
            ) from None


Place = FolderPlace | ObjectStorePlace


def place_from_uri_or_path(text: str) -> Place:
    """The place that `str(place)` was: a URI of an object store, or the path of a folder."""
    return ObjectStorePlace(text) if "://" in text else FolderPlace(Path(text))


def uri_below(store: str, name: str) -> str:
    """The URI of a prefix below that of a store; what follows ? (endpoint, region) stays at its end."""
    path, mark, options = store.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"
