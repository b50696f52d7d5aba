"""nlcourse: learning with noisy labels, hands on.

The package behind the notebooks: noise injectors, training loops and the methods of the papers.
Import the rooms you need (``from nlcourse import datasets, noise, training``); importing the
package itself loads none of them, so that the command line answers at once.
"""

__version__ = "0.1.0"
