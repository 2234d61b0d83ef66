"""Looking at what was mined: text, statistics, pictures with boxes, the contact sheet."""
