"""Ray job: train a model on simulated pairs.

On one GPU, of the node that Ray gives the job:

``ray job submit --working-dir . --entrypoint-num-gpus 1 -- python jobs/train_model.py OUTPUT --device cuda``

On eight GPUs of the cluster, under Ray Train:

``ray job submit --working-dir . -- python jobs/train_model.py OUTPUT --device cuda --replicas 8``

Arguments and exit code are those of ``deblend-batch train``.
"""

import sys

from deblend_batch.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
