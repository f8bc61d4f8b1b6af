"""Model records in the storage: `<base>/<id>/record.json`, beside the artifacts."""

from __future__ import annotations

from kaptain_zen.exceptions import ObjectNotFoundError, PreconditionFailedError, StorageError
from kaptain_zen.model import states
from kaptain_zen.model.ports import Store
from kaptain_zen.model.record import ModelRecord

RECORD_FILE = "record.json"
_ATTEMPTS = 20


class RecordRepository:
    """Reads and writes records; two writers of one record lose nothing of each other."""

    def __init__(self, store: Store) -> None:
        """Use a store; nothing is read yet."""
        self._store = store

    def folder(self, model_id: str) -> str:
        """URI of the folder that holds everything of a model."""
        return f"{self._store.base_uri}/{model_id}"

    def load(self, model_id: str) -> ModelRecord | None:
        """Read a record; None if there is none.

        Raises:
            RecordFormatError: There is one that this release cannot read.
            StorageError: The storage cannot be reached.
        """
        found = self._read(model_id)
        return found[0] if found else None

    def save(self, record: ModelRecord) -> ModelRecord:
        """Write a record, united with what somebody else may have written in the meantime.

        Returns:
            What was written.

        Raises:
            RecordFormatError: What is there cannot be read; it was left as it is.
            StorageError: The storage cannot be reached, or others write all the time.
        """
        uri = self._uri(record.spec.id)
        for _ in range(_ATTEMPTS):
            found = self._read(record.spec.id)
            written = states.merged(record, found[0]) if found else record
            try:
                self._store.write(
                    uri,
                    written.to_json().encode(),
                    version=found[1] if found else None,
                    new=found is None,
                )
            except PreconditionFailedError:
                continue
            return written
        raise StorageError(
            f"{uri} could not be written: other clients changed it {_ATTEMPTS} times in a row. "
            f"Try again when they are done."
        )

    def ids(self) -> list[str]:
        """Ids of all models that have a record, sorted."""
        prefix, suffix = f"{self._store.base_uri}/", f"/{RECORD_FILE}"
        return sorted(
            info.uri[len(prefix) : -len(suffix)]
            for info in self._store.list(self._store.base_uri)
            if info.uri.endswith(suffix)
        )

    def _uri(self, model_id: str) -> str:
        return f"{self.folder(model_id)}/{RECORD_FILE}"

    def _read(self, model_id: str) -> tuple[ModelRecord, str] | None:
        uri = self._uri(model_id)
        try:
            data, version = self._store.read(uri)
        except ObjectNotFoundError:
            return None
        return ModelRecord.from_json(data, where=uri), version
