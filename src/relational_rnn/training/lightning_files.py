"""How Lightning's checkpoints and TensorBoard's points get into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.loggers import TensorBoardLogger

from relational_rnn.training.run_folder import load_checkpoint, save_checkpoint


class SafeCheckpoints(CheckpointIO):
    """Checkpoints that are whole or absent, and that are read as data, never as code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink()


class Events(TensorBoardLogger):
    """Lightning's TensorBoard logger without its hparams.yaml: config.json has the configuration."""

    def save(self) -> None:
        self.experiment.flush()
