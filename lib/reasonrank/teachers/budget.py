"""What a remote teacher may cost: the worst case is set aside before a request, its true cost settled after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


class BudgetSpent(Exception):
    """The next request could pass the budget."""


@dataclass(frozen=True)
class Usage:
    """Tokens of a request, as the server counts them (reasoning is output)."""

    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.output_tokens + other.output_tokens)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens - other.prompt_tokens, self.output_tokens - other.output_tokens)


NOTHING = Usage()


class Budget:
    """Tokens and money for all requests together; None is no limit.

    `input_price`, `output_price`: money per million tokens; `spent`: what earlier runs used, read from their
    journal. A request that could pass a limit waits while others may still turn out cheaper than their worst
    case, and raises BudgetSpent where none is under way; after that nothing more is granted.
    """

    def __init__(
        self,
        *,
        tokens: int | None = None,
        money: float | None = None,
        input_price: float = 0.0,
        output_price: float = 0.0,
        spent: Usage = NOTHING,
    ):
        self.tokens, self.money = tokens, money
        self.input_price, self.output_price = input_price, output_price
        self.spent, self.reserved, self.stopped = spent, NOTHING, False
        self._under_way, self._changed = 0, asyncio.Condition()

    def cost(self, usage: Usage) -> float:
        """Money for `usage`."""
        return (usage.prompt_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6

    async def reserve(self, worst: Usage) -> None:
        """Set `worst` aside; `settle` must follow. Raises BudgetSpent."""
        async with self._changed:
            while not self.stopped and not self._fits(self.spent + self.reserved + worst):
                if self._under_way:
                    await self._changed.wait()
                else:
                    self.stopped = True
                    self._changed.notify_all()
            if self.stopped:
                raise BudgetSpent
            self.reserved += worst
            self._under_way += 1

    async def settle(self, worst: Usage, used: Usage) -> None:
        """Replace a reservation by what was used."""
        async with self._changed:
            self.reserved -= worst
            self._under_way -= 1
            self.spent += used
            self._changed.notify_all()

    def _fits(self, usage: Usage) -> bool:
        within_tokens = self.tokens is None or usage.tokens <= self.tokens
        return within_tokens and (self.money is None or self.cost(usage) <= self.money)
