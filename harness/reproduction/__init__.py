"""The paper, whole: a study of each of its systems, their evaluation, and its tables and figures."""
