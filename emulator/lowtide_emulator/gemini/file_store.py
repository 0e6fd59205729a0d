"""The files of the Files API, and resumable uploads that are streamed to disk."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

from lowtide_emulator.calls import RefusalError
from lowtide_emulator.engine import Clock, Failure
from lowtide_emulator.gemini.mime_types import check_mime_type, guessed_mime_type
from lowtide_emulator.settings import Settings

Source = Literal["UPLOADED", "GENERATED", "REGISTERED"]

ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_FILE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


def new_id(length: int) -> str:
    """Returns a random id of lowercase letters and digits, like those of the service."""
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(length))


def encoded_digest(hasher: hashlib._Hash) -> str:
    """Returns a digest in the form of the Files API."""
    return base64.b64encode(hasher.digest()).decode()


@dataclass(frozen=True)
class StoredFile:
    """A file; times in seconds since the epoch.

    source: whether a client uploaded it, the service made it, or it is an object in Cloud Storage.
    active: the time when its processing is over; may be infinite.
    path: the content; None for a registered file.
    failure: the error of its processing; None if there is none.
    """

    number: int
    id: str
    display_name: str
    mime_type: str
    size: int
    sha256: str
    created: float
    active: float
    expires: float
    path: Path | None
    source: Source = "UPLOADED"
    failure: Failure | None = None


@dataclass
class Upload:
    """A resumable upload.

    The last chunk may be sent again, because its reply may have been lost.
    """

    id: str
    file_id: str
    display_name: str
    mime_type: str
    path: Path
    out: BinaryIO
    size: int = 0
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    chunk_start: int = 0
    chunk_hasher: hashlib._Hash = field(default_factory=hashlib.sha256)
    finished: StoredFile | None = None

    def go_to(self, offset: int) -> None:
        """Prepares for a chunk that begins at `offset`."""
        if offset == self.size:
            self.chunk_start, self.chunk_hasher = offset, self.hasher.copy()
        elif offset == self.chunk_start:
            self.out.seek(offset)
            self.out.truncate()
            self.size, self.hasher = offset, self.chunk_hasher.copy()
        else:
            raise RefusalError(400, f"Expected a chunk at offset {self.size}, got {offset}.")

    def write(self, data: bytes) -> None:
        """Appends bytes of a chunk."""
        self.out.write(data)
        self.hasher.update(data)
        self.size += len(data)


class FileStore:
    """The files of one emulator."""

    def __init__(self, settings: Settings, clock: Clock, folder: Path) -> None:
        self._settings = settings
        self._clock = clock
        self._folder = folder
        self._lock = threading.Lock()
        self._files: dict[str, StoredFile] = {}
        self._uploads: dict[str, Upload] = {}
        self._next = 0
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, *, name: str, display_name: str, mime_type: str, size: int) -> Upload:
        """Starts an upload.

        name: the id of the file, with or without `files/`; an empty one chooses a random id.
        """
        file_id = name.removeprefix("files/") or new_id(12)
        if _FILE_ID.fullmatch(file_id) is None:
            raise RefusalError(
                400,
                f"* CreateFileRequest.file.name: '{file_id}' must be 1 to 40 lowercase letters, "
                "digits or dashes, with no dash at either end.",
            )
        self.check_new(file_id)
        if len(display_name) > 512:
            raise RefusalError(400, "The display name can not be longer than 512 characters.")
        check_mime_type(mime_type)
        self.check_size(size)
        if size + sum(file.size for file in self) > self._settings.max_storage_bytes:
            raise RefusalError(429, "You have exceeded your file storage quota.")
        upload_id = new_id(40)
        path = self._folder / upload_id
        upload = Upload(
            id=upload_id,
            file_id=file_id,
            display_name=display_name,
            mime_type=mime_type,
            path=path,
            out=path.open("w+b"),
        )
        self._uploads[upload_id] = upload
        return upload

    def check_new(self, file_id: str) -> None:
        """Refuses the id of a file that exists."""
        if self.find(file_id) is not None:
            raise RefusalError(409, f"Requested entity already exists: files/{file_id}")

    def check_size(self, size: int) -> None:
        """Refuses a file that is too large."""
        limit = self._settings.max_file_bytes
        if size > limit:
            raise RefusalError(400, f"Request payload size exceeds the limit: {limit} bytes.")

    def upload(self, upload_id: str) -> Upload:
        """Returns an upload. Raises RefusalError if it does not exist."""
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise RefusalError(404, "Upload not found: it has ended or never begun.")
        return upload

    def finish(self, upload: Upload) -> StoredFile:
        """Turns a complete upload into a file."""
        upload.out.close()
        now = self._clock.now()
        upload.finished = self.add(
            StoredFile(
                number=0,
                id=upload.file_id,
                display_name=upload.display_name,
                mime_type=upload.mime_type,
                size=upload.size,
                sha256=encoded_digest(upload.hasher),
                created=now,
                active=now + self._settings.file_processing_seconds,
                expires=now + self._settings.file_seconds,
                path=upload.path,
            )
        )
        return upload.finished

    def register(self, uri: str) -> StoredFile:
        """Makes a file of an object in Cloud Storage, whose content stays there."""
        now = self._clock.now()
        return self.add(
            StoredFile(
                number=0,
                id=new_id(12),
                display_name=uri.rpartition("/")[2],
                mime_type=guessed_mime_type(uri),
                size=0,
                sha256="",
                created=now,
                active=now,
                expires=now + self._settings.file_seconds,
                path=None,
                source="REGISTERED",
            )
        )

    def content_path(self) -> Path:
        """Returns a path for the content of a new file."""
        return self._folder / new_id(40)

    def add(self, file: StoredFile) -> StoredFile:
        """Adds a file and returns it with its number."""
        with self._lock:
            self._next += 1
            added = self._files[file.id] = replace(file, number=self._next)
        return added

    def find(self, file_id: str) -> StoredFile | None:
        """Returns a file; None if it does not exist, is deleted or has expired."""
        file = self._files.get(file_id)
        if file is not None and self._clock.now() >= file.expires:
            self.delete(file)
            return None
        return file

    def __iter__(self) -> Iterator[StoredFile]:
        return (file for file in list(self._files.values()) if self.find(file.id) is not None)

    def is_active(self, file: StoredFile) -> bool:
        """Whether the processing of a file is finished without an error."""
        return file.failure is None and self._clock.now() >= file.active

    def delete(self, file: StoredFile) -> None:
        """Removes a file."""
        self._files.pop(file.id, None)
        if file.path is not None:
            file.path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes all files and all uploads."""
        for upload in self._uploads.values():
            upload.out.close()
            upload.path.unlink(missing_ok=True)
        for file in list(self._files.values()):
            self.delete(file)
        self._uploads.clear()
