/* A header of the core, as STM32duino has one of this name. The core's own files include it by
 * <board.h>, and the Arduino IDE searches the sketch's folder first: a sketch must not have a header
 * of this name. */
#ifndef CORE_BOARD_H_
#define CORE_BOARD_H_
#endif
