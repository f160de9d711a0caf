"""Images and masks in; data set versions, validation and splits.

>>> import tempfile, cv2, numpy as np
>>> from pathlib import Path
>>> with tempfile.TemporaryDirectory() as folder:
...     file = Path(folder) / "a.png"
...     _ = cv2.imwrite(str(file), np.zeros((4, 6), np.uint8))
...     read_image(file, channels=["phase"]).pixels.shape
(1, 4, 6)
"""

from cellfleet.data.freeze import freeze, validate
from cellfleet.data.images.frame import Frame
from cellfleet.data.images.frames import iter_frames
from cellfleet.data.images.reader import read_image, read_mask
from cellfleet.data.records import Entry
from cellfleet.data.version import DataSetVersion

__all__ = ["DataSetVersion", "Entry", "Frame", "freeze", "iter_frames", "read_image", "read_mask", "validate"]
