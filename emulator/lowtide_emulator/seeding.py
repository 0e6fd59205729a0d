"""Seeds: jobs and files that a test puts into the emulator, so that the code under test can begin in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide_emulator.calls import RefusalError, json_reply
from lowtide_emulator.control import control_route
from lowtide_emulator.engine import Engine, Job, JobRecord, JobSeed, SeedError
from lowtide_emulator.gemini import FileSeed, GeminiWork, seed_batch, seed_file
from lowtide_emulator.vertex import JobFailed, VertexWork, seed_job

S = TypeVar("S", JobSeed, FileSeed)
_job_seeds = msgspec.json.Decoder(list[JobSeed])
_file_seeds = msgspec.json.Decoder(list[FileSeed])


class SeedApi:
    """The endpoints that add seeds."""

    def __init__(self, engine: Engine, seeder: Seeder) -> None:
        self._engine = engine
        self._seeder = seeder

    def routes(self) -> list[Route]:
        """Returns the routes."""
        return [
            control_route(self._engine, "jobs", "PUT", self.put_jobs),
            control_route(self._engine, "files", "PUT", self.put_files),
        ]

    async def put_jobs(self, request: Request) -> Response:
        """Adds jobs that have their state already; see `JobSeed`."""
        return await self._added(request, self._seeder.jobs)

    async def put_files(self, request: Request) -> Response:
        """Adds files that have their state already; see `FileSeed`."""
        return await self._added(request, self._seeder.files)

    @staticmethod
    async def _added(request: Request, add: Callable[[object], object]) -> Response:
        seeds = msgspec.json.decode(await request.body())
        return json_reply(await asyncio.to_thread(add, seeds))


class Seeder:
    """Adds seeds to an emulator, for both APIs."""

    def __init__(self, engine: Engine, gemini: GeminiWork, vertex: VertexWork) -> None:
        self._engine = engine
        self._gemini = gemini
        self._vertex = vertex

    def jobs(self, seeds: object) -> list[JobRecord]:
        """Adds jobs, oldest first, and returns their records.

        seeds: a list of objects with the fields of a JobSeed.

        Raises SeedError for the first seed that cannot be added; those before it stay.
        """
        parsed = _parsed(seeds, _job_seeds)
        names = {job.name for job in self._engine.jobs}
        for seed in parsed:
            if seed.name in names:
                raise SeedError(f"{seed.name}: there is a job of this name already")
            names.add(seed.name)
        added: list[Job] = []
        for seed in sorted(parsed, key=lambda one: one.created):
            try:
                if seed.name.startswith("projects/"):
                    added.append(seed_job(self._vertex, self._engine, seed))
                else:
                    added.append(seed_batch(self._gemini, seed))
            except (RefusalError, JobFailed) as error:
                raise SeedError(f"{seed.name}: {error}") from error
        return [self._engine.record(job) for job in added]

    def files(self, seeds: object) -> list[str]:
        """Adds files, and returns their names.

        seeds: a list of objects with the fields of a FileSeed.

        Raises SeedError for the first seed that cannot be added; those before it stay.
        """
        added = []
        for seed in _parsed(seeds, _file_seeds):
            try:
                added.append(f"files/{seed_file(self._gemini, seed).id}")
            except RefusalError as error:
                raise SeedError(f"{seed.name}: {error}") from error
        return added


def _parsed(seeds: object, decoder: msgspec.json.Decoder[list[S]]) -> list[S]:
    try:
        return decoder.decode(msgspec.json.encode(seeds))
    except (msgspec.ValidationError, TypeError) as error:
        raise SeedError(str(error)) from error
