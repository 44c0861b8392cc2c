"""Records whose words, scores, sources and regions follow from their number, and a plain scan."""

WORDS = ["red", "blue", "cat", "dog", "café", "hat"]


def make_records(world, count=60):
    """Records whose words, scores, sources and regions follow from the number."""
    return [
        world.record(
            i,
            question=["what", WORDS[i % 6], WORDS[i // 6 % 6]],
            answer=["Yes"],
            rationale=["so"],
            region=[1, 2, 3][: i % 4],
            source=f"s{i % 3}",
            **({"prediction": i / 100} if i % 5 else {}),
        )
        for i in range(count)
    ]


def scan(records, keep):
    return [
        i
        for i, r in enumerate(records)
        if isinstance(r, dict) and r["region"] != [9] and "answer" in r and keep(r)
    ]
