// Starts the page after all its scripts are loaded.
"use strict";

draw();
backend.start();
