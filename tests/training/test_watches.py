"""Watches over a run: what is trouble, what is not, and that all ranks end alike."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs import write_config
from torch import nn
from training_jobs import Job

from mooring.contract.debugger_config import DebugHookConfig, read_debug_hook_config
from mooring.contract.errors import ConfigurationFileError, SettingError
from mooring.contract.paths import ContainerPaths
from mooring.training.watch_rules import ActivationRule, GradientRule, LossRule
from mooring.training.watch_settings import OnTrouble, WatchSettingError, WatchSettings
from mooring.training.watches import TroubleError, Watches


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    return tmp_path


def settings(**given: Any) -> WatchSettings:
    return WatchSettings.load(given, None)


# --- what is trouble --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_loss_that_is_not_finite_is_told_with_its_step(loss: float) -> None:
    rule = LossRule(settings())
    assert rule.judge(6, 1.0) == []
    (trouble,) = rule.judge(7, loss)
    assert trouble.sentence == f"The loss is {loss} at step 7."


def test_loss_that_does_not_decrease_is_told_after_its_patience() -> None:
    rule = LossRule(settings(loss_window=10, loss_patience=3, loss_decrease=0.01))
    falling = [rule.judge(step, 10 - step / 10) for step in range(1, 51)]
    flat = [rule.judge(step, 5.0) for step in range(51, 91)]
    assert not any(falling)
    (first, *_) = [found[0] for found in flat if found]
    assert first.sentence == (
        "The loss does not decrease: its mean of 10 steps is 5 at step 90, "
        "and has not been 1.00% below 5 since step 60."
    )


def test_loss_that_falls_however_noisily_is_no_trouble() -> None:
    rule = LossRule(settings(loss_window=20, loss_patience=2))
    assert not any(rule.judge(step, 10 * 0.99**step + step % 2) for step in range(200))


def test_negative_loss_may_decrease() -> None:
    rule = LossRule(settings(loss_window=1, loss_patience=1))
    assert not any(rule.judge(step, -1.0 - step) for step in range(10))


def test_gradients_that_explode_or_are_not_finite_are_told_by_name_with_value_and_limit() -> None:
    rule = GradientRule(settings(exploding_norm=100))
    troubles = rule.judge(3, {"a.weight": (100.0, 4), "b.weight": (250.0, 4), "c.bias": (math.nan, 4)})
    assert [trouble.sentence for trouble in troubles] == [
        "The gradient of 'b.weight' has a norm of 250 at step 3, over the limit of 100.",
        "The gradient of 'c.bias' has a norm of nan at step 3.",
    ]


def test_what_overflows_is_left_to_the_scaler() -> None:
    assert GradientRule(settings()).judge(1, {"a": (math.inf, 4)}, overflows=True) == []


def test_gradient_that_stays_small_is_told_and_one_that_comes_back_is_not() -> None:
    rule = GradientRule(settings(vanishing_rms=1e-3, looks=3))
    found = [
        rule.judge(step, {"gone": (1e-4, 4), "back": (1e-4 if step != 2 else 1.0, 4)})  # rms is half of it
        for step in (1, 2, 3)
    ]
    assert [len(each) for each in found] == [0, 0, 1]
    assert found[2][0].sentence == (
        "The gradient of 'gone' has a root mean square of 5e-05 at step 3, "
        "under the limit of 0.001 at 3 looks in a row."
    )


def test_relu_that_stays_dead_is_told() -> None:
    rule = ActivationRule(settings(looks=2, dead_share=0.9))
    assert rule.judge(50, {"act": 0.95, "alive": 0.5}) == []
    (trouble,) = rule.judge(100, {"act": 1.0, "alive": 0.89})
    assert trouble.sentence == (
        "The outputs of 'act' are 100.0% zeros at step 100, at least 90% at 2 looks in a row: it is dead."
    )


# --- a model ----------------------------------------------------------------------------------------------------------


def network(bias: float | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Linear(4, 8)
    if bias is not None:
        nn.init.constant_(first.bias, bias)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(8, 1))


DEAD = -100.0


def train(model: nn.Module, watches: Watches, steps: int, **scale: float) -> None:
    """Take steps; `scale` multiplies the loss of single ones: step_3=nan."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).square().mean() * scale.get(f"step_{step}", 1.0)
        torch.autograd.backward(loss)
        watches.look(loss, step)
        optimizer.step()


def test_healthy_run_is_left_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    with Watches(model, every=5, on_trouble="stop") as watches:
        train(model, watches, 20)
    assert caplog.text == ""
    assert not any(module._forward_hooks for module in model)


def test_stop_comes_before_the_weights_are_changed_and_names_the_first_step() -> None:
    model = network()
    with pytest.raises(TroubleError) as caught, Watches(model, every=4, on_trouble="stop", losses=False) as watches:
        train(model, watches, 8, step_4=math.nan)
    assert "The gradient of '0.weight' has a norm of nan at step 4." in str(caught.value)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_step_of_a_loss_is_its_own_though_it_is_looked_at_later(caplog: pytest.LogCaptureFixture) -> None:
    model = network()
    with Watches(model, every=10, gradients=False) as watches:
        train(model, watches, 20, step_3=math.inf)
    assert [record.getMessage() for record in caplog.records] == ["The loss is inf at step 3. It is not told again."]


def test_losses_after_the_last_look_are_looked_at_in_the_end() -> None:
    model = network()
    with pytest.raises(TroubleError, match="The loss is nan at step 3"), Watches(model, on_trouble="stop") as watches:
        train(model, watches, 3, step_3=math.nan)


def test_dead_relu_and_vanishing_gradient_of_a_model_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model = network(bias=DEAD)
    with Watches(model, every=1, looks=2) as watches:
        train(model, watches, 10)
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert text.count("The outputs of '1' are 100.0% zeros at step 2") == 1
    assert text.count("The gradient of '0.weight' has a root mean square of 0 at step 2") == 1
    assert text.count("'1'") == 1


def test_evaluation_is_none_of_its_business(caplog: pytest.LogCaptureFixture) -> None:
    model = network(bias=DEAD)
    with Watches(model, every=1, looks=1, gradients=False) as watches:
        with torch.no_grad():
            model(torch.ones(2, 4))
        watches.look(1.0)
    assert caplog.text == ""


def test_scalers_gradients_are_taken_back_to_their_scale() -> None:
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    with Watches(model, every=1, on_trouble="stop", exploding_norm=1e3, scaler=scaler) as watches:
        loss = model(torch.ones(2, 4)).square().mean()
        torch.autograd.backward(scaler.scale(loss))
        assert max(float(each.grad.norm()) for each in model.parameters() if each.grad is not None) > 1e4
        watches.look(loss)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_platforms_file_says_what_is_watched_and_how(base: Path) -> None:
    content = {
        "LocalPath": "/opt/ml/output/tensors",
        "HookParameters": {"save_interval": "500", "on_trouble": "stop", "exploding_norm": "12.5"},
        "CollectionConfigurations": [
            {"CollectionName": "gradients", "CollectionParameters": {"train.save_interval": "20"}},
            {"CollectionName": "weights"},
        ],
    }
    write_config(base, "debughookconfig.json", content)
    read = WatchSettings.load({"looks": 7}, read_debug_hook_config(ContainerPaths(base), {}))
    assert read == settings(
        on_trouble=OnTrouble.STOP, every=20, exploding_norm=12.5, losses=False, activations=False, looks=7
    )


def test_code_comes_before_the_file(base: Path) -> None:
    config = DebugHookConfig({"on_trouble": "stop", "every": "10"}, {})
    assert WatchSettings.load({"on_trouble": "warn"}, config) == settings(every=10)


def test_every_bad_setting_is_named() -> None:
    with pytest.raises(WatchSettingError) as caught:
        settings(every=0, on_trouble="panic", evry=3, dead_share=2)
    for words in ("'every' is 0", "'on_trouble' is \"panic\"", "did you mean 'every'?", "'dead_share' is 2"):
        assert words in str(caught.value)
    assert "yperparameter" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["garbage", [], {"HookParameters": 3}, {"CollectionConfigurations": [{}]}, {"CollectionConfigurations": {}}],
)
def test_garbage_is_named(base: Path, content: Any) -> None:
    write_config(base, "debughookconfig.json", content)
    with pytest.raises(ConfigurationFileError, match=r"debughookconfig\.json"):
        Watches(network())


def test_switch_turns_all_of_it_off(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_config(base, "debughookconfig.json", "garbage")
    monkeypatch.setenv("USE_SMDEBUG", "0")
    model = network()
    with Watches(model, every=1, on_trouble="stop") as watches:
        train(model, watches, 3, step_2=math.nan)
    assert caplog.text == ""


def test_another_file_may_be_named(base: Path, tmp_path: Path) -> None:
    write_config(base, "debughookconfig.json", "garbage")
    other = tmp_path / "mine.json"
    other.write_text('{"HookParameters": {"every": 5}}', encoding="utf-8")
    variables = {"SMDEBUG_CONFIG_FILE_PATH": str(other)}
    assert read_debug_hook_config(ContainerPaths(base), variables) == DebugHookConfig({"every": "5"}, {})


# --- ranks ------------------------------------------------------------------------------------------------------------

RANKS = """
import logging, sys, torch
from torch import nn
from mooring.training import Checkpointer, TrainingState, Watches, prepare, process_group
with process_group() as group:
    torch.manual_seed(0)
    model = prepare(nn.Linear(4, 1), group, torch.zeros(2, 4){shard})
    state = TrainingState(model, torch.optim.SGD(model.parameters(), 0.01))
    with Checkpointer(state) as checkpoints, Watches(model, every=5, on_trouble="{on}") as watches:
        for state.step in range(1, 21):
            inputs = torch.ones(2, 4)
            loss = model(inputs).square().mean()
            state.optimizer.zero_grad()
            loss.backward()
            seen = loss.detach() * float("nan") if group.rank == 1 and state.step == 8 else loss
            watches.look(seen, state.step)
            state.optimizer.step()
            if state.step == 5:
                checkpoints.save()
    print("WELL")
"""


def test_nan_on_one_rank_stops_all_of_them_and_the_checkpoint_stays(tmp_path: Path) -> None:
    job = Job.write(tmp_path, RANKS.format(on="stop", shard=""), ranks=2)
    code, output = job.run()
    assert code == 1, output
    assert "WELL" not in output
    assert job.failure.startswith("TroubleError: The loss is nan at step 8. (On rank 1.) The run was stopped before")
    assert output.count("TroubleError: The loss is nan at step 8. (On rank 1.)") >= 2
    assert (job.paths.checkpoints / "step-00000005/manifest.json").exists()


def test_nan_on_one_rank_is_warned_of_by_the_first_and_all_go_on(tmp_path: Path) -> None:
    job = Job.write(tmp_path, RANKS.format(on="warn", shard=", shard=[]"), ranks=2)
    code, output = job.run()
    assert code == 0, output
    assert output.count("The loss is nan at step 8. (On rank 1.)") == 1
    assert output.count("WELL") == 2


@pytest.mark.parametrize(
    ("asked", "expected"), [("", OnTrouble.WARN), ("Stop", OnTrouble.STOP), ("warn", OnTrouble.WARN)]
)
def test_variable_comes_before_code(monkeypatch: pytest.MonkeyPatch, asked: str, expected: OnTrouble) -> None:
    monkeypatch.setenv("MOORING_WATCHES", asked)
    assert Watches(nn.Linear(1, 1), on_trouble="warn").settings.on_trouble is expected


def test_variable_turns_watches_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_WATCHES", "off")
    with Watches(nn.Linear(1, 1), on_trouble="stop", every=1) as watches:
        watches.look(math.nan)


def test_variable_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOORING_WATCHES", "true")
    with pytest.raises(SettingError, match='MOORING_WATCHES is "true"; expected off, warn, stop'):
        Watches(nn.Linear(1, 1))
