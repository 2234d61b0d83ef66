"""Where everything lies under the root of a data set; the one place that knows these names."""

from __future__ import annotations

from dataclasses import dataclass

from trackmill.pipeline.storage.urls import join


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under the root URL of a data set."""

    root: str

    @property
    def config(self) -> str:
        """The resolved configuration and its fingerprint."""
        return join(self.root, "config.json")

    @property
    def card(self) -> str:
        """The data set card, for people."""
        return join(self.root, "README.md")

    @property
    def json_schemas(self) -> str:
        """JSON Schema of the members of a sample."""
        return join(self.root, "schema.json")

    @property
    def plan(self) -> str:
        """Folder of the plan: one file for the first run, one more for each run that found new items."""
        return join(self.root, "plan")

    @property
    def signatures(self) -> str:
        """Queries of signed URLs, for what is not done yet; on this machine only its owner can read it."""
        return join(self.plan, "signatures.arrow")

    @property
    def listing(self) -> str:
        """Folder with the sizes of the input's files when they were planned."""
        return join(self.root, "listing")

    @property
    def tar_indexes(self) -> str:
        """Folder of what the input's tars hold: made while they are planned, so that planning goes on after a kill."""
        return join(self.root, "tar-index")

    @property
    def shards(self) -> str:
        """Folder of the tars."""
        return join(self.root, "shards")

    @property
    def receipts(self) -> str:
        """Folder of the receipts, the markers of complete units."""
        return join(self.root, "receipts")

    @property
    def manifest(self) -> str:
        """All receipts in one file; can be rebuilt from them at any time."""
        return join(self.root, "manifest", "items.parquet")

    @property
    def manifest_shards(self) -> str:
        """One row per shard: name, bytes, SHA-256, samples."""
        return join(self.root, "manifest", "shards.parquet")

    @property
    def manifest_source(self) -> str:
        """Which receipts the manifest was made from, and what they amount to."""
        return join(self.root, "manifest", "made-from.json")

    @property
    def work(self) -> str:
        """Folder of samples that are kept of units in work, see `trackmill.pipeline.mining.kept`; gone at the end."""
        return join(self.root, "work")

    def work_of(self, unit: str) -> str:
        """What is kept of one unit."""
        return join(self.root, "work", unit)

    @property
    def folders(self) -> tuple[str, ...]:
        """Whatever holds files of the data set itself, the root first; work and sidecars have folders in them."""
        return (
            self.root,
            self.plan,
            self.listing,
            self.tar_indexes,
            self.shards,
            self.receipts,
            join(self.root, "manifest"),
        )

    @property
    def sidecars(self) -> str:
        """Folder of the sidecars: tables beside the shards, one folder for each."""
        return join(self.root, "sidecars")

    def sidecar(self, name: str) -> str:
        """Folder of one sidecar."""
        return join(self.sidecars, name)

    def sidecar_about(self, name: str) -> str:
        """What a sidecar holds, and what made it."""
        return join(self.sidecars, name, "sidecar.json")

    def sidecar_part(self, name: str, part: str) -> str:
        """One part of a sidecar: the table of one unit."""
        return join(self.sidecars, name, part)

    def shard(self, name: str) -> str:
        """One tar."""
        return join(self.shards, name)

    def receipt(self, name: str) -> str:
        """One receipt."""
        return join(self.receipts, name)
