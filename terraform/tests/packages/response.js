function handler(event) { return event.request; } // stands in for edge/function in tests of the module
