"""Candidates of VisualCOMET, drawn by a seed."""

from lavis.datasets.unified.visualcomet import VisualCometConverter


def test_drawn_candidates_follow_the_seed_and_hold_every_truth(samples, converted):
    def made(seed):
        converter = VisualCometConverter(
            annotations=samples.visualcomet, image_dir=samples.vcr1images, count=3, seed=seed
        )
        return converted(converter).records

    first, again = made(1), made(1)
    assert first == again
    for record in first:
        assert len(record["choices"]) == 3 and sum(c["truth"] for c in record["choices"]) >= 1
