"""Images to text: concepts, captions, what each region shows, questions and answers."""
