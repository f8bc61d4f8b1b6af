"""A server is prepared only for a pipeline that will deploy."""

from __future__ import annotations

from kaptain_zen.steps.foresight import deploys_later

TRAIN = "kaptain_zen.steps.training.train_model"
DEPLOY = "kaptain_zen.steps.serving.deploy_model"
SOURCES = {"train": TRAIN, "check": "mine.check", "deploy": DEPLOY, "again": TRAIN}
UPSTREAM = {"train": [], "check": ["train"], "deploy": ["check"], "again": ["deploy"]}


def test_a_deployment_anywhere_after_the_step_counts():
    assert deploys_later("train", upstream=UPSTREAM, sources=SOURCES)
    assert deploys_later("check", upstream=UPSTREAM, sources=SOURCES)


def test_one_before_it_or_beside_it_does_not():
    assert not deploys_later("again", upstream=UPSTREAM, sources=SOURCES)
    assert not deploys_later("deploy", upstream=UPSTREAM, sources=SOURCES)
    beside = {"train": [], "deploy": []}
    assert not deploys_later("train", upstream=beside, sources=SOURCES)


def test_steps_that_wait_for_each_other_do_not_hang_it():
    circle = {"a": ["b"], "b": ["a"]}
    assert not deploys_later("a", upstream=circle, sources={"a": TRAIN, "b": TRAIN})
