"""The work of a program on many machines, with Ray Data: `sia generate|evaluate|train label --ray ...`.

    what the journal lacks  ->  map_batches, an actor pool  ->  the journal

The driver is the program as it runs without Ray, with one stage in another place. It reads and checks the
whole input, names all records, and knows from its journal which of them are there. What is missing goes in
blocks into Ray's object store; each actor loads the models once, over the devices that Ray gives it, and
makes blocks of records; the driver writes each into the journal as it comes. In the end the journal is put in
order, by the code that does it without Ray.

Exactly once: Ray runs a block again when its actor dies, so a block may be made twice. A record is what it is
wherever it is made (its draws come of its content, and all actors have engines of as many rows), and the
driver writes those that the journal lacks, by their names. A record is done when its line is in the file.

Why no checkpoint of Ray's: `CheckpointConfig` (beta) is a second account of what is done, beside the files,
for a pipeline that ends in a `write_*` of Ray's. The journal is one account. It is locked, knows a line
that was cut, and refuses other settings; a run goes on with or without Ray, whichever began it.

Memory: Ray bounds what is in flight, so the driver holds the input, as it does without Ray, and of what is
made a few blocks. The input's blocks lie in the object store, which spills to disk.
"""
