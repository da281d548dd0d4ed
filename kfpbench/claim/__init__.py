"""The claim card: does the sentence of the paper hold on this machine, in five parts with their numbers?"""
