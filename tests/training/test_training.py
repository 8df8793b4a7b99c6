"""The loop in one process: what it computes, what it refuses."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harmonia.training import Stopped, TrainConfig, checkpoint, fit, load_weights, optim
from harmonia.training.data import AUGMENT, NOISE, Plan, derived, generator
from harmonia.training.distributed import World
from harmonia.training.guards import locked
from harmonia.types import HarmoniaError


class Points:
    """64 points of a plane in 8 dimensions; augmentation adds noise."""

    def __init__(self, samples: int = 64, noise: float = 0.1) -> None:
        draws = torch.Generator().manual_seed(0)
        self.x = torch.randn(samples, 8, generator=draws)
        self.y = self.x @ torch.randn(8, generator=draws)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        noise = self.noise * torch.randn(len(indices), 8, generator=generator)
        return {"x": self.x[indices] + noise, "y": self.y[indices]}


class Regression(nn.Module):
    """One group, with dropout."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.net = nn.Sequential(
            nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 1)
        )

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"all": list(self.parameters())}

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"all": (self.net(batch["x"]).squeeze(1) - batch["y"]).square().mean()}


class Adversaries(nn.Module):
    """A generator and a discriminator that see each other in both losses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.maker, self.judge = nn.Linear(8, 8), nn.Linear(8, 1)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"maker": list(self.maker.parameters()), "judge": list(self.judge.parameters())}

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        made, real = self.judge(self.maker(batch["x"])), self.judge(batch["x"])
        return {
            "maker": nn.functional.softplus(-made).mean(),
            "judge": (nn.functional.softplus(made) + nn.functional.softplus(-real)).mean(),
        }


def settings(**changes: object) -> TrainConfig:
    return TrainConfig(**({"steps": 24, "batch": 16, "lr": 0.01, "save_every": 5, "device": "cpu"} | changes))  # type: ignore[arg-type]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(result: object) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in result.history if "loss" in line]  # type: ignore[attr-defined]


def test_is_the_plain_loop_to_the_bit(tmp_path: Path) -> None:
    config = settings(warmup=4, lr_end=0.1, clip=0.5, log_every=1)
    result = fit(trained := Regression(), Points(), config, tmp_path)

    model, data = Regression(), Points()
    decays = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    sets = [{"params": decays, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(sets, betas=(0.9, 0.98), fused=True)
    expected = []
    for step in range(1, 25):
        epoch, place = divmod(step - 1, 4)
        chosen = torch.randperm(64, generator=generator(0, 0, epoch))[16 * place : 16 * (place + 1)]
        torch.manual_seed(derived(0, NOISE, step, 0))
        rate = step / 4 if step <= 4 else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 5) / 20))
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * rate
        optimizer.zero_grad()
        loss = model.losses(data.batch(chosen, generator(0, AUGMENT, step - 1, 0)))["all"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        expected.append(loss.item())
    assert same(weights(trained), weights(model))
    assert [value for _, value in losses(result)] == expected


def test_each_group_follows_its_own_loss_only(tmp_path: Path) -> None:
    model = Adversaries()
    batch = Points().batch(torch.arange(16), torch.Generator())
    expected = {}
    for group, parameters in model.groups().items():
        expected[group] = torch.autograd.grad(model.losses(batch)[group], parameters)
    optim.backward(model.losses(batch), model.groups(), 1.0, torch.amp.GradScaler("cpu", enabled=False))
    for group, parameters in model.groups().items():
        for parameter, gradient in zip(parameters, expected[group], strict=True):
            torch.testing.assert_close(parameter.grad, gradient)

    config = settings(lr={"maker": 0.01, "judge": 0.02}, log_every=4, weight_decay=0.0)
    result = fit(model, Points(), config, tmp_path)
    assert {"loss/maker", "loss/judge"} <= result.history[0].keys()


def test_a_group_without_a_loss_is_left_alone(tmp_path: Path) -> None:
    class Late(Adversaries):
        def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"judge": super().losses(batch)["judge"]}

    model = Late()
    before = weights(model)
    fit(model, Points(), settings(steps=3), tmp_path)
    after = weights(model)
    assert torch.equal(before["maker.weight"], after["maker.weight"])
    assert not torch.equal(before["judge.weight"], after["judge.weight"])


@pytest.mark.parametrize("make", [Regression, Adversaries])
def test_accumulated_parts_are_one_batch(tmp_path: Path, make: type[nn.Module]) -> None:
    whole, split = make().double(), make().double()
    for module in (*whole.modules(), *split.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    data = Points(noise=0.0)
    data.x, data.y = data.x.double(), data.y.double()
    one = fit(whole, data, settings(log_every=1), tmp_path / "one")
    four = fit(split, data, settings(log_every=1, accumulate=4), tmp_path / "four")
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(split)[name], value, rtol=1e-6, atol=1e-8)
    for key in one.history[0].keys() - {"samples/s"}:
        assert [line[key] for line in one.history] == pytest.approx([line[key] for line in four.history])


def test_the_average_is_evaluated_and_kept(tmp_path: Path) -> None:
    seen = []
    model = Regression()

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        seen.append(weights(model))
        return {"score": float(len(seen))}

    fit(model, Points(), settings(ema=0.9, evaluate_every=12), tmp_path, evaluate=evaluate)
    last = checkpoint.best(tmp_path)
    average, raw = last.tensors("average"), last.tensors("weights")
    assert same(seen[-1], average) and same(weights(model), average) and not same(average, raw)

    trace: list[dict[str, Tensor]] = []
    plain = Regression()
    by_hand = weights(plain)
    fit(
        plain,
        Points(),
        settings(log_every=1),
        tmp_path / "plain",
        callbacks=[lambda m, _: trace.append(weights(m))],
    )
    for step, values in enumerate(trace, 1):
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = {name: decay * by_hand[name] + (1 - decay) * values[name] for name in values}
    for name, value in average.items():
        torch.testing.assert_close(value, by_hand[name])


def test_patience_ends_the_run_with_the_best_weights(tmp_path: Path) -> None:
    values, seen = iter([3.0, 1.0, 2.0, float("nan"), 5.0]), []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append(weights(model))
        return {"error": next(values)}

    config = settings(evaluate_every=3, patience=2, save_every=2)
    model = Regression()
    arguments = {"evaluate": evaluate, "monitor": "error", "lower_is_better": True}
    result = fit(model, Points(), config, tmp_path, **arguments)  # type: ignore[arg-type]
    assert (result.best, result.best_step, result.step) == (1.0, 6, 12)
    assert same(weights(model), seen[1])
    again = fit(other := Regression(), Points(), config, tmp_path, **arguments)  # type: ignore[arg-type]
    assert str(again.history) == str(result.history) and same(weights(other), seen[1])
    assert load_weights(fresh := Regression(), tmp_path) == 6 and same(weights(fresh), seen[1])


def test_a_loss_that_is_not_finite_ends_the_run_and_the_good_checkpoint_stays(tmp_path: Path) -> None:
    class Breaks(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.tensor(0))

        def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            self.calls += 1
            return {"all": super().losses(batch)["all"] * (float("nan") if self.calls == 12 else 1.0)}

    with pytest.raises(HarmoniaError, match=r"the loss 'all' is nan at step 12 \(step 10 is saved\)"):
        fit(Breaks(), Points(), settings(log_every=20), tmp_path)
    assert load_weights(Breaks(), tmp_path) == 10


def test_weights_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    class Root(nn.Module):  # the loss is 0 and finite, its gradient is not
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def groups(self) -> dict[str, list[nn.Parameter]]:
            return {"all": [self.w]}

        def losses(self, batch: object) -> dict[str, Tensor]:
            return {"all": self.w.sum().sqrt() * 0.0}

    with pytest.raises(
        HarmoniaError, match=r"the weight w is not finite after step 1 \(there is no checkpoint"
    ):
        fit(Root(), Points(), settings(save_every=1), tmp_path)
    assert not list(tmp_path.glob("step-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path, number: signal.Signals) -> None:
    evaluate = {"evaluate": lambda model: {"score": -float(model.net[0].weight.norm())}}
    config = settings(ema=0.9, evaluate_every=4, log_every=3, accumulate=2)
    whole = fit(undisturbed := Regression(), Points(), config, tmp_path / "whole", **evaluate)  # type: ignore[arg-type]

    def stop(model: nn.Module, line: dict[str, float]) -> None:
        if line["step"] == 8:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=r"stopped after step 8 of 24.*run the same command to resume"):
        fit(Regression(), Points(), config, tmp_path / "cut", callbacks=[stop], **evaluate)  # type: ignore[arg-type]
    assert signal.getsignal(number) is before
    cut = fit(resumed := Regression(), Points(), config, tmp_path / "cut", **evaluate)  # type: ignore[arg-type]
    assert same(weights(undisturbed), weights(resumed))
    clean = [
        [{k: v for k, v in line.items() if k != "samples/s"} for line in r.history] for r in (whole, cut)
    ]
    assert clean[0] == clean[1]
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(cut.history)


def stopped_at(folder: Path, step: int, config: TrainConfig) -> None:
    def stop(model: nn.Module, line: dict[str, float]) -> None:
        if line["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        fit(Regression(), Points(), config, folder, callbacks=[stop])


@pytest.mark.parametrize("damage", ["cut", "flipped", "state", "missing"])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    config = settings(log_every=1)
    whole = fit(undisturbed := Regression(), Points(), config, tmp_path / "whole")
    folder = tmp_path / "run"
    stopped_at(folder, 13, config)
    file = folder / "step-00000013" / ("state.json" if damage == "state" else "weights.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[-3] ^= 1
        file.write_bytes(content)
    (folder / ".tmp-00000014").mkdir()  # what a kill in the middle of a checkpoint leaves
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 14, "lo')
    resumed = fit(model := Regression(), Points(), config, folder)
    assert "step-00000013 is damaged" in capsys.readouterr().err
    assert same(weights(undisturbed), weights(model)) and losses(whole) == losses(resumed)
    assert sorted(p.name for p in folder.glob("*step*")) == ["step-00000020", "step-00000024"]
    assert not list(folder.glob(".tmp-*"))


def test_all_checkpoints_damaged_is_an_error(tmp_path: Path) -> None:
    fit(Regression(), Points(), settings(), tmp_path)
    for file in tmp_path.glob("step-*/optimizer.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(HarmoniaError, match=r"every checkpoint in .* is damaged"):
        fit(Regression(), Points(), settings(), tmp_path)


def test_a_changed_run_is_refused(tmp_path: Path) -> None:
    fit(Regression(), Points(), settings(), tmp_path)
    with pytest.raises(HarmoniaError, match=r"has lr = 0.01, not 0.02: use the same settings"):
        fit(Regression(), Points(), settings(lr=0.02), tmp_path)
    with pytest.raises(HarmoniaError, match="began on other data"):
        fit(Regression(), Points(noise=0.2), settings(), tmp_path)
    with pytest.raises(HarmoniaError, match=r"of another model: judge.bias is absent there"):
        load_weights(Adversaries(), tmp_path)
    fit(Regression(), Points(), settings(save_every=7, workers=1), tmp_path)


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    with (
        locked(tmp_path, World(torch.device("cpu"))),
        pytest.raises(HarmoniaError, match="another run is using"),
    ):
        fit(Regression(), Points(), settings(), tmp_path)


def test_an_epoch_is_every_sample_once_and_ranks_share_it() -> None:
    def seen(world: int, accumulate: int) -> list[list[int]]:
        steps = []
        for step in range(6):
            indices = []
            for part in range(accumulate):
                for rank in range(world):
                    plan = Plan(samples=50, batch=12, accumulate=accumulate, seed=5, rank=rank, world=world)
                    epoch, start = plan.start(step * accumulate + part)
                    indices += plan.order(epoch)[start : start + plan.size].tolist()
            steps.append(indices)
        return steps

    one = seen(1, 1)
    assert one == seen(2, 1) == seen(1, 3) == seen(2, 3)
    first, second = [i for step in one[:4] for i in step], [i for step in one[4:] for i in step]
    assert len(set(first)) == 48 and first[:24] != second
    with pytest.raises(HarmoniaError, match="make it a multiple of 6"):
        Plan(samples=50, batch=16, accumulate=3, seed=0, world=2)
    with pytest.raises(HarmoniaError, match="fewer than one batch"):
        Plan(samples=10, batch=12, accumulate=1, seed=0)


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    one = fit(Regression(), Points(), settings(log_every=1), tmp_path / "thread")
    two = fit(Regression(), Points(), settings(log_every=1, workers=2), tmp_path / "workers")
    assert losses(one) == losses(two)


class Tape:
    """A stream: 5 batches in an epoch."""

    def batches(self, size: int, seed: int, rank: int, world: int):  # type: ignore[no-untyped-def]
        draws = torch.Generator().manual_seed(seed)
        for _ in range(5):
            x = torch.randn(world * size, 8, generator=draws)[rank::world]
            yield {"x": x, "y": x.sum(1)}


def test_a_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    config = settings(log_every=1)
    whole = fit(Regression(), Tape(), config, tmp_path / "whole")

    def stop(model: nn.Module, line: dict[str, float]) -> None:
        if line["step"] == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        fit(Regression(), Tape(), config, tmp_path / "cut", callbacks=[stop])
    assert losses(fit(Regression(), Tape(), config, tmp_path / "cut")) == losses(whole)
    with pytest.raises(HarmoniaError, match="set workers to 0"):
        fit(Regression(), Tape(), settings(workers=1), tmp_path / "workers")


def test_an_error_in_the_data_reaches_the_caller(tmp_path: Path) -> None:
    class Broken(Points):
        def batch(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
            if 40 in indices and len(indices) == 16:
                raise HarmoniaError("photo 40 cannot be read")
            return super().batch(indices, generator)

    with pytest.raises(HarmoniaError, match="photo 40"):
        fit(Regression(), Broken(), settings(), tmp_path)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains(tmp_path: Path, precision: str) -> None:
    config = settings(steps=60, precision=precision, log_every=20)
    result = fit(Regression(0.0), Points(), config, tmp_path)
    assert losses(result)[-1][1] < 0.7 * losses(result)[0][1]
    state = checkpoint.best(tmp_path).state
    assert bool(state["scaler"]) == (precision == "float16")


def test_tied_and_frozen_weights_are_kept_once(tmp_path: Path) -> None:
    class Tied(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.net[0].requires_grad_(False)
            self.again = self.net[4]

    model = Tied()
    frozen = model.net[0].weight.clone()
    fit(model, Points(), settings(), tmp_path)
    kept = checkpoint.best(tmp_path)
    assert "again.weight" not in kept.tensors("weights")
    assert not any(name.startswith("net.0.") for name in kept.tensors("optimizer"))
    assert torch.equal(model.net[0].weight, frozen)
    load_weights(fresh := Tied(), tmp_path)
    assert same(weights(fresh), weights(model)) and fresh.again.weight is fresh.net[4].weight


def test_groups_have_to_be_whole() -> None:
    class Odd(Adversaries):
        chosen: dict[str, list[nn.Parameter]]

        def groups(self) -> dict[str, list[nn.Parameter]]:
            return self.chosen

    model = Odd()
    model.chosen = {"judge": list(model.judge.parameters())}
    with pytest.raises(HarmoniaError, match=r"no optimizer group has the parameter maker.weight"):
        optim.trained(model)
    model.chosen = {"all": list(model.parameters()), "judge": list(model.judge.parameters())}
    with pytest.raises(HarmoniaError, match=r"judge.weight is in the optimizer groups 'all' and 'judge'"):
        optim.trained(model)
    model.chosen = {"all": [*model.parameters(), nn.Parameter(torch.zeros(1))]}
    with pytest.raises(HarmoniaError, match="not in the model"):
        optim.trained(model)


def test_losses_have_to_fit_the_groups() -> None:
    groups = Adversaries().groups()
    good = groups["judge"][0].sum()
    optim.check_losses({"judge": good}, groups)
    for losses, message in (
        ({"critic": good}, "'critic', which is no optimizer group"),
        ({"judge": good[None]}, r"has shape \(1,\)"),
        ({"judge": good.detach()}, "does not depend on any trained parameter"),
        ({}, "returned no loss"),
    ):
        with pytest.raises(HarmoniaError, match=message):
            optim.check_losses(losses, groups)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0: it has to be at least 1"),
        ({"lr": {"a": 0.0}}, "lr is .*: it has to be above 0"),
        ({"warmup": 25}, r"warmup is 25: it has to be from 0 to steps \(24\)"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"accumulate": 3}, r"accumulate is 3: it has to be a divisor of batch \(16\)"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"lr_end": 2.0}, "lr_end is 2.0"),
    ],
)
def test_settings_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HarmoniaError, match=message):
        settings(**changes)


def test_refusals_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="the device 'gpu' cannot be used"):
        fit(Regression(), Points(), settings(device="gpu"), tmp_path)
    with pytest.raises(HarmoniaError, match="shard needs several processes"):
        fit(Regression(), Points(), settings(shard=True), tmp_path)
    with pytest.raises(HarmoniaError, match="lr has no value for the optimizer group 'judge'"):
        fit(Adversaries(), Points(), settings(lr={"maker": 0.1}), tmp_path)
    with pytest.raises(HarmoniaError, match="list is not a dataset"):
        fit(Regression(), [], settings(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(HarmoniaError, match="returned no 'score' to monitor: it returned recall"):
        fit(Regression(), Points(), settings(), tmp_path, evaluate=lambda model: {"recall": 1.0})
