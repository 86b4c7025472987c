"""Training learns, averages its weights as it says, and goes on exactly where it was stopped."""

import pytest
import torch

from edm_lesson.checkpoints import CheckpointError
from edm_lesson.config import load_config
from edm_lesson.data import Images
from edm_lesson.samplers import sample_images
from edm_lesson.training import (
    Trainer,
    batch_indices,
    choose_precision,
    ema_decay,
    learning_rate_share,
    make_ema,
    train_step,
)

CPU = {"device": "cpu"}


def short(*overrides, images=320):
    return load_config(
        "smoke", [f"training.images={images}", "training.log_every=64", "training.warmup=64", *overrides]
    )


@pytest.fixture(scope="module")
def few():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (100, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.randint(0, 3, (100,), generator=generator))


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in [*trainer.denoiser.parameters(), *trainer.ema.parameters()]])


def test_a_tiny_run_learns_and_its_samples_beat_noise(mnist):
    trainer = Trainer(load_config("smoke", ["training.images=6400"]), mnist, **CPU).train(progress=False)
    losses = [loss for _, loss in trainer.losses]
    assert losses[0] > 0.7, "the loss starts near 1"
    assert losses[-1] < 0.5 * losses[0], losses

    digits = mnist.batch(slice(2000)).flatten(1)

    def distance(images):
        return torch.cdist(images.clamp(-1, 1).flatten(1), digits).min(1).values.mean().item()

    samples = sample_images(trainer.ema_denoiser, 16)
    shuffled = digits[
        :16, torch.randperm(784, generator=torch.Generator().manual_seed(0))
    ]  # the right pixels, no strokes
    noise = torch.randn(16, 784, generator=torch.Generator().manual_seed(0))
    assert distance(samples) < 0.8 * distance(shuffled) < distance(noise)


@pytest.mark.parametrize("half_life", [32, 1000])
def test_after_its_half_life_the_ema_holds_half_of_the_start(half_life):
    start, model = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    ema = make_ema(start, lambda: ema_decay(8, half_life))
    for _ in range(half_life // 8):
        ema.update_parameters(model)
    for averaged, first, last in zip(ema.parameters(), start.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(averaged, (first + last) / 2)


def test_the_ema_ramps_up_with_the_images_seen():
    assert ema_decay(10, 1000, images_seen=200, rampup=0.05) == pytest.approx(0.5)
    assert ema_decay(10, 1000, images_seen=10**6, rampup=0.05) == pytest.approx(0.5**0.01)
    assert ema_decay(10, 1000, images_seen=0) == 0
    assert ema_decay(10, 0) == 0


def test_every_epoch_visits_every_image_once_in_a_new_order():
    order = torch.cat([batch_indices(step, 7, 10, seed=1) for step in range(10)])
    epochs = order.reshape(7, 10)
    assert all(epoch.sort().values.tolist() == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1
    assert batch_indices(0, 25, 10).bincount().tolist().count(3) == 5, "a batch may be larger than the data"
    assert not torch.equal(batch_indices(0, 7, 100, seed=1), batch_indices(0, 7, 100, seed=2))


def test_the_learning_rate_rises_and_falls_to_zero():
    settings = load_config("smoke", ["training.images=1000", "training.warmup=100", "training.batch_size=10"]).training
    rates = [learning_rate_share(seen, settings) for seen in range(0, 1001, 10)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=0.03)
    assert rates[50] == pytest.approx(0.5)
    assert rates[-1] == 0
    assert learning_rate_share(0, load_config("smoke", ["training.warmup=0"]).training) == 1


@pytest.mark.parametrize("stop", [64, 176])
def test_a_resumed_run_ends_with_the_weights_of_one_that_was_never_stopped(few, tmp_path, stop):
    settings = short("network.dropout=0.2", "network.label_dim=3")
    whole = Trainer(settings, few, **CPU).train(progress=False)
    Trainer(settings, few, tmp_path, **CPU).train(until=stop, progress=False)
    torch.manual_seed(12345)
    resumed = Trainer(settings, few, tmp_path, **CPU).resume()
    assert resumed.images_seen == stop
    resumed.train(progress=False)
    assert torch.equal(weights(resumed), weights(whole))


def test_an_interrupted_run_is_saved_and_goes_on_exactly(few, tmp_path):
    def interrupt(trainer):
        if trainer.images_seen == 128:
            raise KeyboardInterrupt

    trainer = Trainer(short(), few, tmp_path, **CPU)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(callback=interrupt, progress=False)
    resumed = Trainer(short(), few, tmp_path, **CPU).resume().train(progress=False)
    again = trainer.train(progress=False)
    whole = Trainer(short(), few, **CPU).train(progress=False)
    assert torch.equal(weights(resumed), weights(whole))
    assert torch.equal(weights(again), weights(whole))


def test_resuming_with_another_configuration_is_refused(few, tmp_path):
    Trainer(short(), few, tmp_path, **CPU).train(until=64, progress=False)
    with pytest.raises(
        CheckpointError, match=r"started with training .*'learning_rate': 0\.004.*choose another folder"
    ):
        Trainer(short("training.learning_rate=1e-3"), few, tmp_path, **CPU).resume()
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        Trainer(short(), few, tmp_path / "nowhere", **CPU).resume()


def test_training_leaves_the_random_numbers_of_others_alone(few):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Trainer(short(images=64), few, **CPU).train(progress=False)
    assert torch.equal(torch.rand(4), expected)


def test_the_seed_decides(few):
    first, same, other = (
        Trainer(short(f"training.seed={seed}", images=64), few, **CPU).train(progress=False) for seed in (1, 1, 2)
    )
    assert torch.equal(weights(first), weights(same))
    assert not torch.equal(weights(first), weights(other))


def test_half_precision_trains(few):
    trainer = Trainer(short("training.precision=bf16"), few, **CPU).train(progress=False)
    assert torch.isfinite(weights(trainer)).all()
    exact = Trainer(short("training.precision=float32"), few, **CPU).train(progress=False)
    assert trainer.losses[-1][1] == pytest.approx(exact.losses[-1][1], rel=0.05)


def test_a_step_goes_down_the_loss():
    model = torch.nn.Linear(4, 4, bias=False)
    images = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss(denoiser, x, class_labels):
        return (denoiser(x) - x) ** 2

    values = [train_step(model, loss, optimizer, images).item() for _ in range(300)]
    assert values[-1] < 0.01 * values[0]


def test_precision_is_the_one_named_or_the_fastest_that_the_device_multiplies():
    assert choose_precision("float32", "cpu") == torch.float32
    assert choose_precision("bf16", "cpu") == torch.bfloat16
    assert choose_precision("fp16", "cuda") == torch.float16
    assert choose_precision("auto", "mps") == torch.float32
    assert choose_precision("auto", "cpu") in (torch.float32, torch.bfloat16)


def test_images_and_labels_that_do_not_fit_the_configuration_are_refused(few):
    with pytest.raises(ValueError, match=r"The images are \(1, 28, 28\).*\(3, 28, 28\)"):
        Trainer(short("data.img_channels=3"), few, **CPU)
    with pytest.raises(ValueError, match=r"The labels go up to 2; network\.label_dim is 2"):
        Trainer(short("network.label_dim=2"), few, **CPU)
