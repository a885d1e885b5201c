"""Where the parts of a pipeline are sent, on a machine without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch


class Places:
    """Where offload's hooks have sent each part of a pipeline.

    On one machine the place of rest is `cpu`, and the device that computes is `cpu:0`.
    """

    def __init__(self, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.last: dict[str, str] = {}
        names = {id(part): name for name, part in pipe.components.items()}
        own = torch.nn.Module.to

        def to(part: torch.nn.Module, *places: Any, **named: Any) -> torch.nn.Module:
            if id(part) in names:
                self.last[names[id(part)]] = str([*places, *named.values()][0])
            return own(part, *places, **named)

        # accelerate replaces the method of each module that it hooks.
        monkeypatch.setattr(torch.nn.Module, "to", to)
