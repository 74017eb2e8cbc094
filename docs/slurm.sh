#!/bin/bash
# A run in several processes on a cluster with SLURM. One minute before its time limit, SLURM sends it a signal: the run
# is saved, requeued, and resumed.
#
#   sbatch docs/slurm.sh --config configs/classic_cnn.yaml
#
# With GPUs: a task for each, by `#SBATCH --gpus-per-task=1` in place of the CPUs.
#SBATCH --job-name=mnist_lightning
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append

srun python -m mnist_lightning fit "$@" --auto_resume true --trainer.strategy ddp \
  --trainer.num_nodes "$SLURM_NNODES" --trainer.devices "$SLURM_NTASKS_PER_NODE"
status=$?
if [ "$status" -eq 143 ]; then # told to end
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
