"""Stands in for the data, and for the training: the score is that of a bowl over two constants."""

import __main__

MAX_SEQ_LEN = 2048
TIME_BUDGET = 0.00001


class Tokenizer:
    @classmethod
    def from_directory(cls):
        return cls()

    def get_vocab_size(self):
        return 8192


def make_dataloader(*_):
    while True:
        yield None, None, 1


def evaluate_bpb(*_):
    away = abs(__main__.MATRIX_LR - 0.03) + 0.01 * abs(__main__.DEPTH - 9)
    return 0.99 + 0.1 * away
