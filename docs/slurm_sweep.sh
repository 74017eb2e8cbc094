#!/bin/bash
# A sweep on a cluster with SLURM. The tasks of the array share a database, and run trials until it has as many as
# requested. One minute before the time limit, SLURM sends a signal: the trials are saved, and the task is requeued.
#
#   export STORAGE=postgresql://USER@HOST/DATABASE  # with the password in ~/.pgpass
#   sbatch docs/slurm_sweep.sh --config configs/mlp.yaml --space configs/sweeps/mlp.yaml --trials 100
#SBATCH --job-name=sweep
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append

export OMP_NUM_THREADS=1 # a trial for each CPU
# Each task continues the trials in its own folder.
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" python -m mnist_lightning sweep "$@" --storage "$STORAGE" \
  --workers "$SLURM_CPUS_PER_TASK" --trainer.default_root_dir "sweep_runs/$SLURM_ARRAY_TASK_ID"
status=$?
if [ "$status" -eq 143 ]; then # told to end
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
