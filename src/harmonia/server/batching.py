"""Batches requests of concurrent clients: requests that wait while one batch runs form the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

from harmonia.server.errors import ApiError

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Batches calls of one function.

    ``run`` maps a batch of questions to answers or exceptions, in ``executor``. A batch has at most ``size``
    questions; its first question waits at most ``delay`` seconds for others. With more than ``queue`` waiting
    questions, further ones get ApiError 503.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Q]], Sequence[A | Exception]],
        executor: Executor,
        *,
        size: int,
        delay: float,
        queue: int,
    ) -> None:
        self.run, self.executor, self.size, self.delay = run, executor, size, delay
        self.waiting: asyncio.Queue[tuple[Q, asyncio.Future[A]]] = asyncio.Queue(queue)
        self.batches = self.questions = 0
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, question: Q) -> A:
        """Answer one question; raises the exception that ``run`` returned for it."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        try:
            self.waiting.put_nowait((question, answer))
        except asyncio.QueueFull:
            raise ApiError(
                503, "too many waiting requests: try again in a second", headers={"Retry-After": "1"}
            ) from None
        return await answer

    def start(self) -> None:
        """Start the worker in the running event loop."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Answer all accepted questions, then stop the worker."""
        await self.waiting.join()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            batch = await self._next()
            await self._answer([(question, answer) for question, answer in batch if not answer.cancelled()])
            for _ in batch:
                self.waiting.task_done()

    async def _answer(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        if not batch:
            return
        self.batches += 1
        self.questions += len(batch)
        results: Sequence[Any]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self.executor, self.run, [q for q, _ in batch])
        except Exception as error:
            # the callers of this batch get the error; the next batch may succeed
            results = [error] * len(batch)
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.cancelled():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    async def _next(self) -> list[tuple[Q, asyncio.Future[A]]]:
        batch = [await self.waiting.get()]
        if self.waiting.empty() and self.delay:
            await asyncio.sleep(self.delay)
        while len(batch) < self.size and not self.waiting.empty():
            batch.append(self.waiting.get_nowait())
        return batch
