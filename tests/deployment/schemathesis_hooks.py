"""Let Schemathesis send images of a digit instead of random bytes."""

import schemathesis
from hypothesis import strategies as st

from tests.images import draw_seven, encode

IMAGES = st.sampled_from([encode(draw_seven(), kind) for kind in ("png", "jpeg", "gif", "webp")])
schemathesis.openapi.media_type("image/*", IMAGES)
schemathesis.openapi.format("binary", IMAGES)  # of a form
