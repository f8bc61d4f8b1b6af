"""Sharing requests out by percentage: exact over every hundred, random within."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

BLOCK = 100


class Split:
    """Chooses one of several routes for each request.

    Independent draws would give a canary of 10 % anything from 4 to 17 of the first hundred
    requests. A shuffled deck gives it exactly 10, and still no client can guess which ones.
    """

    def __init__(
        self,
        weights: Sequence[int],
        shuffle: Callable[[list[int]], None] = random.shuffle,
    ) -> None:
        """Prepare the choice.

        Args:
            weights: Percentage of each route; together 100.
            shuffle: Brings a list into a random order, in place.

        Raises:
            ValueError: The weights are no percentages that sum to 100.
        """
        if any(isinstance(w, bool) or not isinstance(w, int) or w < 0 for w in weights):
            raise ValueError(f"weights {list(weights)} are not whole numbers from 0 to {BLOCK}")
        if sum(weights) != BLOCK:
            raise ValueError(f"weights {list(weights)} do not sum to {BLOCK}")
        self._deck = [route for route, weight in enumerate(weights) for _ in range(weight)]
        self._shuffle = shuffle
        self._next = BLOCK

    def choose(self) -> int:
        """The index of the route for the next request."""
        if self._next == BLOCK:
            self._shuffle(self._deck)
            self._next = 0
        route = self._deck[self._next]
        self._next += 1
        return route
