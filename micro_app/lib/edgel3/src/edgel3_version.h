/* The library's version: that of the Python package, which a test compares. */
#ifndef EDGEL3_VERSION_H_
#define EDGEL3_VERSION_H_

/** Version of the library, MAJOR.MINOR.PATCH. */
#define EDGEL3_VERSION "0.1.0"

#endif /* EDGEL3_VERSION_H_ */
