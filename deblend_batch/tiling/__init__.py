"""From detections and pixels to pairs, tiles and stamps: pure functions, and one reader."""
