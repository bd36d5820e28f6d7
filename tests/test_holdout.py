"""Who is held out: fixed for ever, one in five, and apart from every other choice by hash."""

import doctest

import numpy as np
import pytest

from models import holdout
from models.holdout import customer_hash, is_holdout

IDS = [str(number) for number in range(12_346, 12_346 + 20_000)]


def test_examples_in_the_docstrings():
    assert doctest.testmod(holdout).failed == 0


def test_the_choice_never_changes():
    # Pinned: another choice would train on customers that older models were judged by.
    chosen = [customer for customer, held in zip(IDS, is_holdout(IDS), strict=True) if held]
    assert chosen[:5] == ["12349", "12350", "12354", "12359", "12362"]


def test_one_in_five_is_held_out():
    assert is_holdout(IDS).mean() == pytest.approx(0.2, abs=0.01)


def test_a_sample_by_another_key_holds_as_many():
    smallest = np.argsort(customer_hash(IDS, b"some-sample"))[:4000]
    assert is_holdout(IDS)[smallest].mean() == pytest.approx(0.2, abs=0.02)


def test_hashes_keep_the_order_of_the_ids_and_depend_on_the_key():
    forward, backward = customer_hash(IDS[:50], b"a"), customer_hash(IDS[:50][::-1], b"a")
    assert (forward == backward[::-1]).all()
    assert (forward != customer_hash(IDS[:50], b"b")).all()


def test_no_ids_give_an_empty_mask():
    assert is_holdout([]).shape == (0,)


@pytest.mark.parametrize("wrong", [17850, 17850.0, None, float("nan")])
def test_an_id_that_is_not_text_is_refused(wrong):
    with pytest.raises(ValueError, match="not text"):
        customer_hash(["17850", wrong], b"key")


@pytest.mark.parametrize("key", [b"", b"x" * 65])
def test_a_key_of_unusable_length_is_refused(key):
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        customer_hash(["17850"], key)
