"""Ray job: process a field or a survey.

``ray job submit --working-dir . -- python jobs/process_field.py config.yaml``

Arguments and exit code are those of ``deblend-batch run``; the cluster is the one that runs the job.
"""

import sys

from deblend_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
