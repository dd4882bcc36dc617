"""How long until a network is good, each library by its own best practice?

    python -m benchmarks quality
    python -m benchmarks quality --data DIR      with MNIST's four files in DIR, or in DIR/mnist

64-128-10 on scikit-learn's digits, and with `--data` 784-256-256-10 on MNIST, from nothing to a test accuracy of 97 and 98 %:
the shortest run of each library, of 1 epoch, 2, 4, 6, ... whose accuracy on held-out examples reaches it on the median
of three seeds, and the time that run takes, compilation apart. Best practice: batches of 128, Adam from 3e-3 falling
along a cosine; scikit-learn, which has no such schedule for Adam, at its constant 1e-3.
"""
