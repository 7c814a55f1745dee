"""The second edition of the embedded world; the first lies one folder above until it is replaced.

What is new: shapes and colours may repeat in a scene, pictures come in four sizes, some pairs of
shape and colour are kept from training, and questions may name a thing by where it stands from
another. What both editions share (graphs, drawing, questions, facts, words, files) lies above, too.
"""
