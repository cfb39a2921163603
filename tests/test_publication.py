import numpy as np
from logs import dataset_of, random_log

from umair_jax.data import publication

DAY = 86_400


def test_days_count_from_the_beginning_of_the_log():
    log = random_log(0, seconds=10 * DAY)
    first, last = int(log.timestamp.min()), int(log.timestamp.max())
    published = np.full(26, first, np.int64)
    published[1:6] = first + 2 * DAY, first - 3 * DAY, -1, first - 1_000 * DAY, last + DAY
    when, out = publication.days(dataset_of(log, published=published))
    assert when.dtype == out.dtype == np.float32
    np.testing.assert_allclose(when, (log.timestamp - first) / DAY, rtol=1e-6)
    span = (last - first) / DAY
    # An unknown time, and one from long before the log, are as old as can be told.
    np.testing.assert_allclose(out[1:6], [2, -3, -span, -span, span + 1], rtol=1e-5)
    assert out[6] == 0
