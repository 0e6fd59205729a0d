"""The endpoints of the Files API.

Source: https://ai.google.dev/api/files
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lowtide_emulator.calls import CallDesk, RefusalError, json_reply, page, page_size, read_body
from lowtide_emulator.faults import kinds
from lowtide_emulator.gemini.callers import check_caller, check_token
from lowtide_emulator.gemini.file_store import StoredFile, Upload
from lowtide_emulator.gemini.mime_types import check_mime_type, guessed_mime_type
from lowtide_emulator.gemini.wire import BATCHES, RegisterBody, UploadBody, file_resource
from lowtide_emulator.gemini.work import GeminiWork
from lowtide_emulator.wire import either, explain, integer

OBJECT = re.compile(r"gs://[^/]+/.+")
MAX_ID = 40
MAX_PAGE = 100
MAX_METADATA = 1 << 20
_decode_register = msgspec.json.Decoder(RegisterBody).decode
_decode_upload = msgspec.json.Decoder(UploadBody).decode


class ResultsResponse(FileResponse):
    """A file that is sent in large pieces.

    ranges: whether a `Range` header gets status 206 and that range; otherwise it is ignored.
    """

    chunk_size = 1 << 20

    def __init__(self, path: Path, *, ranges: bool) -> None:
        super().__init__(path, media_type="application/octet-stream")
        self._ranges = ranges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file, or a part of it."""
        if not self._ranges:
            headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": headers}
        await super().__call__(scope, receive, send)


class FilesApi:
    """The endpoints under `/{version}/files`, and those for upload and download."""

    def __init__(self, work: GeminiWork, desk: CallDesk) -> None:
        self._work = work
        self._engine = work.engine
        self._desk = desk

    def routes(self) -> list[Route]:
        """Returns the routes, for any version."""
        return [
            Route("/upload/{version}/files", self.upload, methods=["POST", "PUT"]),
            Route("/{version}/files", self.list, methods=["GET"]),
            Route("/{version}/files:register", self.register, methods=["POST"]),
            Route("/{version}/files/{id}:download", self.download, methods=["GET"]),
            Route("/download/{version}/files/{id}:download", self.download, methods=["GET"]),
            Route("/{version}/files/{id}", self.get, methods=["GET"]),
            Route("/{version}/files/{id}", self.delete, methods=["DELETE"]),
        ]

    async def upload(self, request: Request) -> Response:
        """Starts a resumable upload, or stores a chunk of one."""
        command = request.headers.get("x-goog-upload-command", "")
        upload_id = request.query_params.get("upload_id")
        if upload_id is None:
            return await self._start(request, command)

        async def work(_: Sequence[kinds.Kind]) -> Response:
            upload = self._work.files.upload(upload_id)
            if upload.finished is not None:
                return self._finished(request, upload.finished)
            if command == "query":
                return json_reply({}, _upload_headers("active", upload))
            return await self._chunk(request, upload, command)

        subject = f"{request.url.path} {self._upload_name(upload_id)}"
        return await self._desk.serve("files.upload.chunk", subject, request, work)

    async def get(self, request: Request) -> Response:
        """Returns the record of an uploaded file."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            return json_reply(self._resource(request, self._find(request)))

        return await self._desk.serve("files.get", self._subject(request), request, work)

    async def list(self, request: Request) -> Response:
        """Returns a page of uploaded files, newest first."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            size, before = page_size(request, MAX_PAGE, default=10)
            newest = sorted(self._work.files, key=lambda file: file.number, reverse=True)
            rest = (file for file in newest if before is None or file.number < before)
            shown, token = page(rest, size, lambda file: file.number)
            reply: dict[str, object] = {}
            if shown:
                reply["files"] = [self._resource(request, file) for file in shown]
            if token is not None:
                reply["nextPageToken"] = token
            return json_reply(reply)

        return await self._desk.serve("files.list", request.url.path, request, work)

    async def register(self, request: Request) -> Response:
        """Makes files of objects in Cloud Storage, which the caller's OAuth token must be allowed to read."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            check_token(request, self._engine.settings)
            try:
                body = _decode_register(await read_body(request, MAX_METADATA))
            except msgspec.ValidationError as error:
                raise RefusalError(400, f"Invalid JSON payload received. {explain(error)}") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RefusalError(400, f"Invalid JSON payload received. {error}") from error
            if not body.uris:
                raise RefusalError(400, "* RegisterFilesRequest.uris: uris is not specified")
            for index, uri in enumerate(body.uris):
                if OBJECT.fullmatch(uri) is None:
                    raise RefusalError(400, f"* RegisterFilesRequest.uris[{index}]: {uri!r} is not gs://bucket/object")
                check_mime_type(guessed_mime_type(uri))
            files = [self._work.files.register(uri) for uri in body.uris]
            return json_reply({"files": [self._resource(request, file) for file in files]})

        return await self._desk.serve("files.register", request.url.path, request, work)

    async def delete(self, request: Request) -> Response:
        """Deletes an uploaded file."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            self._work.files.delete(self._find(request))
            return json_reply({})

        return await self._desk.serve("files.delete", self._subject(request), request, work)

    async def download(self, request: Request) -> Response:
        """Sends the results file of a batch or another generated file, or a part of it."""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            check_caller(request, self._engine.settings)
            path = self._results(request.path_params["id"])
            return ResultsResponse(path, ranges=self._engine.settings.ranges)

        return await self._desk.serve("files.download", self._subject(request), request, work)

    async def _start(self, request: Request, command: str) -> Response:
        body = UploadBody()
        refused: RefusalError | None = None
        try:
            check_caller(request, self._engine.settings)
            data = await read_body(request, MAX_METADATA)
            body = _decode_upload(data) if data.strip() else body
        except RefusalError as refusal:
            refused = refusal
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            refused = RefusalError(400, f"Invalid JSON payload received. {error}")
        file = body.file
        display_name = either(file.display_name_camel, file.display_name_snake) or ""

        async def work(_: Sequence[kinds.Kind]) -> Response:
            if refused is not None:
                raise refused
            if "start" not in command:
                raise RefusalError(400, "Only resumable uploads are served: send command 'start'.")
            headers = request.headers
            mime_type = either(file.mime_camel, file.mime_snake)
            try:
                size = integer(file.size_camel, file.size_snake)
                announced = size or int(headers.get("x-goog-upload-header-content-length", 0))
            except ValueError as error:
                raise RefusalError(400, f"Invalid size: {error}") from error
            upload = self._work.files.begin(
                name=file.name,
                display_name=display_name,
                mime_type=mime_type or headers.get("x-goog-upload-header-content-type") or "",
                size=announced,
            )
            url = request.url.replace(query=f"upload_id={upload.id}&upload_protocol=resumable")
            return json_reply({}, {"x-goog-upload-url": str(url), **_upload_headers("active", upload)})

        subject = f"{request.url.path} {display_name}"
        return await self._desk.serve("files.upload.start", subject, request, work)

    async def _chunk(self, request: Request, upload: Upload, command: str) -> Response:
        if "upload" not in command and "finalize" not in command:
            raise RefusalError(400, f"Unknown upload command: {command!r}")
        try:
            offset = int(request.headers.get("x-goog-upload-offset", upload.size))
        except ValueError as error:
            raise RefusalError(400, f"Invalid upload offset: {error}") from error
        upload.go_to(offset)
        async for data in request.stream():
            self._work.files.check_size(upload.size + len(data))
            upload.write(data)
        if "finalize" in command:
            return self._finished(request, self._work.files.finish(upload))
        return json_reply({}, _upload_headers("active", upload))

    def _finished(self, request: Request, file: StoredFile) -> Response:
        return json_reply({"file": self._resource(request, file)}, {"x-goog-upload-status": "final"})

    def _resource(self, request: Request, file: StoredFile) -> dict[str, object]:
        base = f"{request.url.scheme}://{request.url.netloc}/{request.path_params['version']}"
        return file_resource(file, active=self._work.files.is_active(file), base=base)

    def _find(self, request: Request) -> StoredFile:
        file_id = request.path_params["id"]
        if len(file_id) > MAX_ID:
            raise RefusalError(
                400,
                f"* GetFileRequest.name: File ID (name excluding 'files/') cannot be more than {MAX_ID} characters.",
            )
        file = self._work.files.find(file_id)
        if file is None:
            raise _no_access(file_id)
        return file

    def _results(self, file_id: str) -> Path:
        jobs, now = self._engine.jobs, self._engine.clock.now()
        job_id = file_id.removeprefix("batch-")
        file = self._work.files.find(file_id)
        if file is not None and file.source == "GENERATED" and file.path is not None:
            return file.path
        if file is not None:
            raise RefusalError(400, f"Only generated files can be downloaded, not files/{file_id}.")
        if file_id == job_id:
            raise _no_access(file_id)
        if jobs.find_deleted(job_id) is not None:
            raise RefusalError(404, f"File not found: files/{file_id}")
        job = jobs.find(job_id, BATCHES)
        if job is None or job.inline or not job.has_results(now):
            raise _no_access(file_id)
        ended = job.at(now).ended
        if ended is not None and now >= ended + self._engine.settings.file_seconds:
            raise _no_access(file_id)
        return job.output_path

    def _subject(self, request: Request) -> str:
        file_id: str = request.path_params["id"]
        file = self._work.files.find(file_id)
        job = self._engine.jobs.find(file_id.removeprefix("batch-"), BATCHES)
        name = file.display_name if file is not None else job.display_name if job else ""
        return f"{request.url.path} {name}"

    def _upload_name(self, upload_id: str) -> str:
        try:
            return self._work.files.upload(upload_id).display_name
        except RefusalError:
            return ""


def _upload_headers(status: str, upload: Upload) -> dict[str, str]:
    return {
        "x-goog-upload-status": status,
        "x-goog-upload-size-received": str(upload.size),
        "x-goog-upload-chunk-granularity": "262144",
    }


def _no_access(file_id: str) -> RefusalError:
    return RefusalError(
        403,
        f"You do not have permission to access the File {file_id} or it may not exist.",
    )
