"""The multimodal datasets that jobs make: names for the tables with their output."""

from __future__ import annotations

from contextlib import suppress

from lowtide.addresses import is_dataset
from lowtide.models import ResultError
from lowtide_worker.providers.google import GoogleClient, as_object, as_text, call
from lowtide_worker.providers.protocol import Missing, Refused
from lowtide_worker.providers.vertex.tables import VertexTables


class VertexDatasets:
    """The datasets at which jobs have written their output. Every method raises a `ProviderError`."""

    def __init__(self, client: GoogleClient, tables: VertexTables) -> None:
        self._client = client
        self._tables = tables

    def table(self, location: str) -> str:
        """Returns the URI of a dataset's table (GET); any other location as it is.

        Raises `Refused` for a dataset without a table.
        """
        if not is_dataset(location):
            return location
        metadata = as_object(as_object(call(self._client, "get", location)).get("metadata"))
        source = as_object(as_object(metadata.get("inputConfig")).get("bigquerySource"))
        table = as_text(source.get("uri"))
        if table is None or not table.startswith("bq://"):
            raise Refused(ResultError(reason="UNKNOWN_OUTPUT", message=f"{location} has no table of BigQuery"))
        return table

    def delete_output(self, location: str, display_name: str) -> None:
        """Deletes a job's dataset with its table, if the table is Lowtide's. One that is gone is no error."""
        if not is_dataset(location):
            return
        with suppress(Missing):
            table = self.table(location)
            if self._tables.is_own(table, display_name):
                # The table first: without the dataset nothing would name it.
                self._tables.delete_output(table, display_name)
                call(self._client, "delete", location)
