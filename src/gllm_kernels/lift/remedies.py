"""What a refusal asks of the author of the function: one row per kind of refusal.

A refusal states what was found; where it was raised without saying what is allowed and what to
change, its row says so in terms of the C text.
"""

from __future__ import annotations

import re

NOT_COMPILED = "give whole functions as a compiler writes them"
ONE_LOOP = "write one loop whose body computes every element in the same way"
INDEX = "x[i*n + j] and the like: sums of loop counters times sizes, plus constants"
NAMED = "loops and conditions over the sizes that are arguments"
SINGLE = "declare the array with the type that the code reads, and read single elements"
# fmt: off
# (the refusal begins with, what is allowed, what to change in the C)
REMEDIES: tuple[tuple[str, str, str], ...] = (
    # ---- formulas
    (r"the outputs are not instances of one formula",
     "out[i, j] = f(...) with the same f for all i and j, sums from the first term on",
     "compute every element from inputs alone: no special first or last element, and nothing that is "
     "carried from one element to the next (prefix sums, filters)"),
    (r".*elements written do not lie at even distances", "out[i*n + j] for all i < m, j < n", ONE_LOOP),
    (r".*by another formula than at other sizes", "one formula for all sizes, with terms in order",
     "let every size run the same loop: no threshold on a size, no accumulator beside the sum, no "
     "other treatment of the rest of a division; check the return type in the declaration"),
    (r".*elements are written, the formula", "one formula for all sizes",
     "write every element once, at every size"),
    (r".*lies at another polynomial of the sizes", INDEX, ONE_LOOP),
    (r"the function writes nothing", "a store to an array, or a float result",
     "check the return type and which pointers are const in the declaration"),
    (r"the function returns", "a float or double result, or none",
     "return the value itself, and find its position with numpy"),
    (r".*elements of state or distance", "few local variables and small distances between elements",
     "keep no array of earlier elements in the function"),
    # ---- addresses
    (r".* uses a product of loop counters", INDEX,
     "index with one counter per factor, x[i*n + j]; x[i*i] and triangles have no index notation"),
    (r".* uses .*which does not step", "pointers and counters that step by the same in each "
     "round", "use x[i] with the loop counter; do not exchange pointers inside the loop"),
    (r".* uses ", INDEX,
     "make x[i % k], x[i / k] and x[i & k] a loop of their own: for i < m, for j < k: x[j], out[i*k + j]"),
    (r"(a table of constants|a local array) indexed by", "arrays that are arguments; constants in the code",
     "pass the table as an argument and index it like any array, x[i*n + j]"),
    (r".* is used at .* before the first element", "indices from 0 on, at every size",
     "let the loop begin where x[i - 1] exists, or pass a pointer to the first element that is read"),
    (r".* is a size that decides nothing", "sizes that are the length of a loop, a stride or a value",
     "let loops run over the sizes that are declared: write 3 for a fixed length, and no size"),
    (r"the address .* is not an element", "arrays that are arguments",
     "pass a table as an argument, or write its values into the code; no local arrays under a counter"),
    (r"the address .* can wrap", "sizes and counters of size_t, or int within 2^31", "use size_t"),
    (r"the address .* whole element", INDEX, SINGLE),
    (r"a (load from|store to) the stack of the caller", "local variables, inside their bounds",
     "check the bounds of local arrays, and the number of arguments in the declaration"),
    (r"the address of a local variable", "addresses that are loaded from and stored to",
     "compute with the values, not with where they lie"),
    (r"a load from a global variable", "arguments, local variables and constants",
     "pass the value as an argument, or make the variable `static const`"),
    (r"a store to a global variable", "no state outside the arguments",
     "return the value, or store it through an argument"),
    (r"a store through .* const", "stores through pointers without const",
     "declare an output as a plain pointer: float *out"),
    # ---- sizes and counters
    (r"a branch on .*, for which no sizes", "conditions on sizes that come true at small sizes",
     "let every size run the same code, or write a function per range"),
    (r"sizes that take the same path", NAMED, "let every size run the same code"),
    (r"the number of rounds of a loop|a loop of .* rounds",
     "as many rounds as a product of different sizes, or a sum of sizes",
     "let the counter step by 1 up to a size that is an argument"),
    (r"a condition on .* which cannot be sampled", "conditions that are linear in the sizes",
     "let every size run the same code"),
    (r"this loop exit was never taken", "loops over the sizes that are arguments",
     "end every loop with i < n, where n is an argument"),
    (r"the length of a loop depends on an outer counter", "rectangular loops: for j < n",
     "pass a mask, or a length per row, and compute all elements"),
    (r"a counter that steps by a comparison", "a step by the comparison that ends the loop",
     "step every loop by a constant, and end it with i < n"),
    (r"a test of one bit of a size", "tests of bits of data", "let every size run the same code"),
    (r"the loop counters do not settle", "counters that step by the same in each round",
     "step every loop by a constant"),
    (r"compared: .* wrap|.* can wrap around", "sizes and counters of size_t, or int within 2^31",
     "use size_t for sizes and counters, and convert with (float)(ptrdiff_t)n"),
    (r"\d+ dimensions", "at most six sizes", "merge sizes that only occur as a product"),
    (r"more than \d+ size cases", "few conditions on sizes", "let every size run the same code"),
    (r"more than \d+ instructions: a loop", "loops that end at a size",
     "end every loop with i < n, where n is an argument; check the order of the declaration"),
    (r"more than \d+ instructions can", "one function", NOT_COMPILED),
    # ---- data
    (r"integer data are shifted", "sums, differences and products of integer data",
     "unpack bits outside, or multiply instead; floats have no bits here"),
    (r"a comparison of integer data of more", "comparisons of integers below 2^24, or with a constant",
     "convert to float, or use int8_t to int16_t arrays"),
    (r"an unsigned comparison of integer data", "signed comparisons of signed data",
     "declare the array and the variable with the same signedness"),
    (r".*bits of integer data are read|integer data in", "one width and sign per array", SINGLE),
    (r"a counter, a size or integer data are used", "floats from arithmetic and (float) conversions",
     "convert with (float)i instead of joining bits in a union"),
    (r"a loop that ends on a condition on data|data decide how often", "loops over sizes only",
     "run the loop to its end and choose with ?: inside it: s += stopped ? 0 : x[i]"),
    (r"a loop inside a branch on data", "branches on data around single expressions",
     "put the loop outside, and choose with ?: in its body"),
    (r"condition .* on integer data", "<, <=, ==, != of integer data", "compare elements directly"),
    (r"condition .* after a comparison of floats", "<, <=, ==, != and isnan of floats",
     "compare floats directly"),
    (r"condition .* on the carry", "comparisons of sizes", "use size_t, and test i < n"),
    (r"a condition on parity", "comparisons of sizes", "use size_t, and test i < n"),
    (r"bitwise arithmetic on floats|a blend by a sign", "negation, fabsf, copysignf of constants, ?:",
     "write the value as arithmetic: -v, fabsf(v), v < 0 ? a : b"),
    (r"an address is converted", "floats from sizes and data", "do not compute with pointers' values"),
    # ---- calls and registers
    (r"memset", "memset(out, 0, n * sizeof *out) and memcpy of whole arrays", "set elements in a loop"),
    (r".*between arrays of elements of other|.*is not the address of an element|the number of bytes|"
     r"\d+ bytes are copied", "memset and memcpy of n * sizeof *x bytes, at most 1 MiB when checked",
     "multiply the number of elements by sizeof *x, or set the elements in a loop"),
    (r"more than \d+ calls", "functions that do not call themselves", "use a loop"),
    (r"a call does not come back|the function returns without|a jump|pop from|a store more than|"
     r"the stack is not aligned|a part of a stack slot|.*is read before it is written|.*is read after|"
     r"the flags are not set|a vector register is loaded|xmm", "code of the System V ABI for x86-64",
     "check the order and the types of the declaration against the C, give variables a value where they "
     "are declared, and compile with -O1"),
)
# fmt: on


def remedy(what: str) -> tuple[str, str]:
    """(what is allowed, what to change) for a refusal, without the sizes it happened at."""
    plain = re.sub(r"^at [^:]*: ", "", what)
    for pattern, expected, change in REMEDIES:
        if re.match(pattern, plain):
            return expected, change
    return "", ""
