"""w2v-BERT: the semantic tokenizer."""
