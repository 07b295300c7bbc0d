"""Ray job: make a detection table from a field.

``ray job submit --working-dir . -- python jobs/detect_sources.py FIELD DETECTIONS``

Arguments and exit code are those of ``deblend-batch detect``; the cluster is the one that runs the job.
"""

import sys

from deblend_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["detect", *sys.argv[1:]]))
