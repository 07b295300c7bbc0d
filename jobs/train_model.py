"""Ray job: train a model on simulated pairs.

``ray job submit --working-dir . --entrypoint-num-gpus 1 -- python jobs/train_model.py OUTPUT --device cuda``

Arguments and exit code are those of ``deblend-batch train``, which runs on the node that Ray gives the job.
"""

import sys

from deblend_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
