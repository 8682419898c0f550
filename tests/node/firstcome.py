"""First come, first served: what a scheduler should do while nobody pays, in its simplest form."""

from nectar_node.scheduler import MAX_ROWS, PROMPT_SHARE, Grant, Work


class FirstCome:
    """Everybody in the order of arrival."""

    def __init__(self) -> None:
        self._short: dict[Work, None] = {}
        self._long: dict[Work, None] = {}

    def add(self, work: Work) -> None:
        (self._short if work.short else self._long)[work] = None

    def take(self, prompt_rows: int | None) -> list[Grant]:
        grants: list[Grant] = []
        room = MAX_ROWS
        kept = MAX_ROWS // PROMPT_SHARE if self._long else 0
        for work in list(self._short):
            rows = work.batch * work.left
            if rows > room - kept and grants:
                break
            grants.append(Grant(work, work.left))
            del self._short[work]
            room -= rows
        if prompt_rows is not None:
            room = min(room, prompt_rows)
        for work in list(self._long):
            tokens = work.left if prompt_rows is None else min(work.left, room // work.batch)
            if tokens <= 0 and (not grants or grants[-1].work.short):
                tokens = 1  # whoever waits longest gets on, however many rows it has and whoever decodes
            if tokens <= 0:
                break
            grants.append(Grant(work, tokens))
            room -= tokens * work.batch
            if tokens == work.left:
                del self._long[work]
        return grants
