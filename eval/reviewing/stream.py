"""Stream mode: pictures pass quickly, one key says that something was wrong, and the key's picture is worked out.

A person needs some 300 to 600 ms to press the key, so that the picture on the screen by then is a later one. Each press
is spread over the pictures before it by how likely the delay is; several passes in other orders sharpen the result
(after Krishna et al., "Embracing error to enable rapid crowdsourcing", CHI 2016). Nothing is decided by a stream: it
sorts the pictures, and the reviewer decides about them in a grid, the suspects first.
"""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from eval.promise.label import Sha256
from eval.reviewing.answers import Name
from eval.reviewing.session import ReviewSession
from stylegate import files
from stylegate.records import Record

BLOCK = 60  # pictures of a block; half a minute at two a second
KNOWN_SHARE = 0.1  # of a block: known rejects, to measure how many the reviewer sees
DELAY_S, DELAY_SPREAD_S = 0.45, 0.12  # from the picture to the press, before the presses themselves say more
NO_PICTURE = 0.02  # presses a second that no picture caused
PRIOR = 0.1  # share of pictures that cause a press, before the first one
ROUNDS = 15  # of the estimation; it has settled by then
SUSPECT = 0.25  # from this probability on a picture is shown among the suspects


class PictureWithTimeShown(Record):
    """A picture that was shown."""

    sha256: Sha256
    at_ms: float = Field(ge=0, le=1e9)
    """When it appeared, in milliseconds of the page's clock."""


class PassTimesAndKeyPresses(Record):
    """One pass of a block of pictures: when each was shown, and when a key was pressed, in milliseconds."""

    shown: list[PictureWithTimeShown] = Field(min_length=1, max_length=200)
    """In the order in which they were shown."""
    presses_ms: list[float] = Field(max_length=500)
    """When the key was pressed, in milliseconds of the same clock."""


class StreamPassesOfBlock(Record):
    """The body of a request: all passes of one block so far."""

    who: Name
    passes: list[PassTimesAndKeyPresses] = Field(min_length=1, max_length=10)


class ObjectionProbabilitiesAndDelay(NamedTuple):
    """For each picture the probability that the reviewer objects to it, and the reviewer's mean delay."""

    probability: dict[str, float]  # by sha256: that the reviewer objects to the picture
    delay_s: float  # the reviewer's mean delay


def objection_probabilities_from_key_presses(
    passes: Sequence[PassTimesAndKeyPresses],
) -> ObjectionProbabilitiesAndDelay:
    """The probability that each picture caused a press, by expectation maximisation over all passes.

    The delay of a press is normal; its mean and spread are estimated with the rest.
    """
    pictures = sorted({showing.sha256 for block in passes for showing in block.shown})
    index = {sha256: number for number, sha256 in enumerate(pictures)}
    who = [np.array([index[s.sha256] for s in block.shown]) for block in passes]
    onsets = [np.array([s.at_ms for s in block.shown]) / 1000 for block in passes]
    presses = [np.array(block.presses_ms, float) / 1000 for block in passes]
    looks = np.bincount(np.concatenate(who), minlength=len(pictures))
    chance, mean, spread = np.full(len(pictures), PRIOR), DELAY_S, DELAY_SPREAD_S
    for _ in range(ROUNDS):
        caused = np.zeros(len(pictures))
        weights, delays = [np.zeros(0)], [np.zeros(0)]
        for shown, begun, pressed in zip(who, onsets, presses, strict=True):
            if not len(pressed):
                continue
            delay = pressed[:, None] - begun[None, :]
            density = np.exp(-0.5 * ((delay - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
            share = chance[shown][None, :] * density
            share /= share.sum(axis=1, keepdims=True) + NO_PICTURE
            missed = np.prod(1 - np.clip(share, 0, 1), axis=0)
            np.add.at(caused, shown, 1 - missed)
            weights.append(share.ravel())
            delays.append(delay.ravel())
        chance = (caused + PRIOR) / (looks + 1)
        weight, every = np.concatenate(weights), np.concatenate(delays)
        if (total := weight.sum()) > 0.5:  # a delay of one's own, from the first presses on
            mean = float((DELAY_S * 5 + weight @ every) / (5 + total))
            variance = (DELAY_SPREAD_S**2 * 5 + weight @ (every - mean) ** 2) / (5 + total)
            spread = float(np.clip(np.sqrt(variance), 0.04, 0.3))
            mean = float(np.clip(mean, 0.15, 1.2))
    return ObjectionProbabilitiesAndDelay({sha256: float(chance[number]) for sha256, number in index.items()}, mean)


def next_picture_block_for_stream_mode(session: ReviewSession, who: str) -> dict[str, Any]:
    """{"order": sha256 of the next pictures that are open for the reviewer}, known rejects among them,
    in random order.
    """
    queue = session.queue
    with session.lock:
        asked = [sha256 for sha256 in queue.order_for_reviewer(who) if sha256 in queue.pictures]
        ours = [sha256 for sha256 in asked if session.is_open_for(who, sha256)][:BLOCK]
    random = secrets.SystemRandom()
    known = [picture.sha256 for picture in queue.known_rejects]
    hidden = random.sample(known, min(len(known), round(len(ours) * KNOWN_SHARE)))
    mixed = [*ours, *hidden]
    random.shuffle(mixed)
    return {"order": mixed}


def rank_pictures_by_key_presses(session: ReviewSession, given: StreamPassesOfBlock) -> dict[str, Any]:
    """The answer to a stream's page: "order" has the block's pictures, those first that the reviewer most likely
    objects to; "suspects" those of them that are likely enough; "known" and "seen" count the hidden known rejects and
    those that were noticed, which is stored for each of them; "delay_ms" is the mean delay of a press.
    """
    found = objection_probabilities_from_key_presses(given.passes)
    known = {picture.sha256 for picture in session.queue.known_rejects} & found.probability.keys()
    ours = [sha256 for sha256 in found.probability if sha256 in session.queue.pictures]
    ours.sort(key=lambda sha256: -found.probability[sha256])
    seen = {sha256: found.probability[sha256] >= SUSPECT for sha256 in sorted(known)}
    session.store_noticed_known_rejects(given.who, files.canonical_sha256(given.json_data_without_defaults()), seen)
    return {
        "order": ours,
        "suspects": [sha256 for sha256 in ours if found.probability[sha256] >= SUSPECT],
        "known": len(known),
        "seen": sum(seen.values()),
        "delay_ms": round(1000 * found.delay_s),
    }
