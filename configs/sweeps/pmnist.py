"""Permuted MNIST, a pixel a step, at the budget of table 1 of Bai et al. 2018 (TCN): 70,000 parameters.

There LSTM has a test accuracy of 0.857, GRU 0.873, RNN 0.253, TCN 0.972, each after a search of its own.
Batches, Adam, its rate and 20 epochs are those of the authors' pmnist_test.py. What differs: 5,000 training
images are for validation, the rate falls by a cosine and not to a tenth in the middle, a dense input of 32,
gradients clipped at 1, gates told the length. Seeds do not stop at the task's threshold, as `mnist` alone
does.
"""

from configs.sweeps import smnist

CELLS = smnist.CELLS

TASKS = {"permuted_mnist": {}}

SHARED = smnist.SHARED
