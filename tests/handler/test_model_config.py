from pathlib import Path

import pytest

from mooring.handler.errors import ModelConfigError
from mooring.handler.model_config import ModelConfig


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + "0" * 400])
@pytest.mark.parametrize("key", ["response_seconds", "load_seconds", "batching.max_delay_ms"])
def test_number_that_no_deadline_can_have_is_told_with_its_key(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "mooring.toml").write_text(f"{key} = {value}\n")
    with pytest.raises(ModelConfigError, match=f"{key}: expected a finite number"):
        ModelConfig.load(tmp_path)


def test_negative_number_is_told_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "mooring.toml").write_text("response_seconds = -1\n")
    with pytest.raises(ModelConfigError, match="response_seconds: expected no negative number"):
        ModelConfig.load(tmp_path)
